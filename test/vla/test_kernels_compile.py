"""What a machine without a GPU can but interpret is compiled, for a GPU that starts kernels early and an older one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from specvla_ros.vla.triton_code import attention, early_start, norms, products

X = "*bf16"
NUMBERS = {"count": "i32", "length": "i32", "window": "i32", "head_stride": "i32", "heads": "i32", "head_size": "i32",
           "width": "i32", "width_out": "i32", "eps": "fp32", "scale": "fp32"}
ROOM = {"highests": "*fp32", "totals": "*fp32", "sums": "*fp32", "arrived": "*i32"}

def compiled(kernel, early, capability, warps, **constants):
    if "EARLY" in kernel.arg_names:
        constants["EARLY"] = early
    numbers = NUMBERS | ({"scale": X} if "SCALED" in constants else {})
    types = {name: "constexpr" if name in constants else (ROOM | numbers).get(name, X) for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    options = {"num_warps": warps, **({"launch_pdl": True} if constants.get("EARLY") else {})}
    source = ASTSource(fn=kernel, signature=types, constexprs=places)
    code = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]
    assert ("griddepcontrol.wait" in code) == constants.get("EARLY", False), kernel

for early, capability in ((early_start.POSSIBLE, 90), (False, 80)):
    compiled(norms.rms_norm, early, capability, 8, BLOCK=256)
    compiled(norms.add_rms_norm, early, capability, 8, BLOCK=256)
    compiled(attention.attend, early, capability, 4, HALF=32, BLOCK_ROWS=16, BLOCK_KEYS=128, PARTS=4)
    one = {"WIDTH": 512, "SCALED": False, "GATED": True}
    compiled(products.product_of_a_row, early, capability, 1, **one, BLOCK_OUT=1, BLOCK_IN=512)
compiled(norms.add_layer_norm, False, 80, 4, SCALED=True, BLOCK=256)
compiled(attention.rotate_and_store, False, 80, 4, HALF=32, BLOCK_HEADS=16)
compiled(products.product_of_rows, False, 80, 4, **one, BLOCK_ROWS=16, BLOCK_OUT=32, BLOCK_IN=128)
compiled(products.gate, False, 80, 4, BLOCK=1024)
"""


def test_the_kernels_compile_for_a_gpu_that_can_start_them_early_and_for_an_older_one() -> None:
    """One that does not would be replaced by torch's slower operations, with a warning."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
