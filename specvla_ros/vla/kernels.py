"""Triton kernels for the layers of a pass over a few positions.

Such a pass reads gigabytes of weights and next to nothing else, yet plain torch starts a dozen small kernels in each
layer for norms, rotations and gates; each costs microseconds. These few take their place on a GPU where Triton works
(it needs a C compiler when it runs first). They round where torch's own operations round. The products with so few rows
read the weights faster than torch's do.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from specvla_ros.vla.cache import KeyValueCache

try:
    import triton

    from specvla_ros.vla.triton_code import attention, early_start, norms, products
except ImportError:
    triton = None

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
FLOAT8 = torch.float8_e4m3fn
LARGEST_FLOAT8 = torch.finfo(FLOAT8).max
OLDEST = (8, 0)
"""Compute capability of the GPUs (Ampere) whose programs share enough memory for these blocks."""
MOST_ROWS = 16
"""Of a `product` that is faster than torch's, and of a block in `attend`: the least that matrix units multiply."""
PRODUCT_STEP = 256
"""Inputs that `product` reads at once; its blocks divide it."""
MOST_AT_ONCE = 4096
"""Weights of a row that one program of `product` holds."""
MOST_QUERIES = 64
"""Of `attend`: a tree."""
MOST_ROW_BLOCKS = MOST_QUERIES // MOST_ROWS
"""Of `attend`."""
EARLY_START = (9, 0)
"""Compute capability (Hopper) from which a kernel can be started before the one before it has ended."""
HEADS_AT_ONCE = 16
"""That one program of `rotate_and_store` turns."""
ATTENTION_STEP = 128
"""Slots of the cache that one program of `attend` reads."""


def usable(x: Tensor, dimensions: int = 2) -> bool:
    """Whether these kernels can compute with `x`: on the current GPU, in a type they know, no gradient to come.

    Args:
        dimensions: that `x` must have; the language model's kernels take (n, width), and training has batches of it.
    """
    knows = x.dim() == dimensions and x.dtype in DTYPES and x.is_contiguous()
    return knows and not torch.is_grad_enabled() and _runs_on(x)


def _runs_on(x: Tensor) -> bool:
    # Triton starts its programs on the thread's current GPU, wherever their tensors lie.
    return x.is_cuda and x.device.index == torch.cuda.current_device() and _works()


@cache
def _works() -> bool:
    """Triton compiles and runs here; where it does not, torch's own operations do the same more slowly."""
    if triton is None or torch.cuda.get_device_capability() < OLDEST:
        return False
    try:
        x = torch.ones(1, 16, device="cuda")
        return bool((rms_norm(x, x[0], 0.0) == x).all())
    except Exception as error:  # a missing compiler, an old driver: Triton has many ways to fail
        warnings.warn(f"Triton's kernels cannot be used here ({error}); torch's own are slower", stacklevel=2)
        return False


@cache
def _start(count: int, device: torch.device) -> dict[str, bool]:
    """How the language model's kernels are started: those for one row, where it can be, before the last one's end.

    A product of more rows has few and large programs. Started early they lie unevenly on the GPU, which costs more.
    """
    can_be_early = (
        count == 1
        and early_start.POSSIBLE
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= EARLY_START
    )
    return {"EARLY": True, "launch_pdl": True} if can_be_early else {"EARLY": False}


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` can be used: few rows, or integer weights; 16-bit rows, and sizes that divide into blocks."""
    return (
        (len(x) <= MOST_ROWS or weight.dtype == torch.int8)
        and x.dtype != torch.float32  # the matrix units would round it
        and weight.shape[1] % PRODUCT_STEP == 0
        and len(weight) % PRODUCT_STEP == 0
        and weight.is_contiguous()
        and usable(x)
    )


def product(x: Tensor, weight: Tensor, scale: Tensor | None = None, *, gated: bool = False) -> Tensor:
    """(n, in) times the transpose of (out, in) weights.

    Args:
        weight: of the inputs' type, or of 8 bits; its sizes are multiples of `PRODUCT_STEP`. No kernel before that may
            still run writes it.
        scale: (out,) float32, what each output is multiplied with.
        gated: SiLU of the first half of the outputs times the second half, which makes them half as many.
    """
    if gated and len(x) > MOST_ROWS:
        return gate(product(x, weight, scale))
    count, width = x.shape
    outputs = len(weight) // 2 if gated else len(weight)
    out = torch.empty(count, outputs, dtype=x.dtype, device=x.device)
    given = x, weight, x if scale is None else scale, out
    kind = {"WIDTH": width, "SCALED": scale is not None, "GATED": gated}
    if count == 1:
        block, start = _row_block(weight), _start(count, x.device)
        products.product_of_a_row[(outputs // block["BLOCK_OUT"],)](*given, outputs, **kind, **block, **start)
        return out
    blocks = _product_blocks(count, is_wide=outputs > 2 * width, gated=gated)
    grid = triton.cdiv(count, blocks["BLOCK_ROWS"]), outputs // blocks["BLOCK_OUT"]
    products.product_of_rows[grid](*given, count, outputs, **kind, **blocks, num_warps=4)
    return out


def _row_block(weight: Tensor) -> dict[str, int]:
    """What was fastest on an H200: a whole row of weights at once, or two of longer and of 8-bit ones by pieces."""
    width = weight.shape[1]
    if width > MOST_AT_ONCE or weight.element_size() == 1:
        return {"BLOCK_OUT": 2, "BLOCK_IN": 1024, "num_warps": 2}
    block = triton.next_power_of_2(width)
    return {"BLOCK_OUT": 1, "BLOCK_IN": block, "num_warps": max(1, block // 1024)}


def _product_blocks(count: int, *, is_wide: bool, gated: bool) -> dict[str, int]:
    """What was fastest on an H200. Few programs must each have more on the way than many have."""
    if count > MOST_ROWS:
        return {"BLOCK_ROWS": 64, "BLOCK_OUT": 128, "BLOCK_IN": 64, "num_stages": 3}
    step, stages = (PRODUCT_STEP // 2, 3) if gated else (PRODUCT_STEP, 3 if is_wide else 5)
    return {"BLOCK_ROWS": MOST_ROWS, "BLOCK_OUT": 32, "BLOCK_IN": step, "num_stages": stages}


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(n, width) normed by its root mean square, times (width,) `weight`."""
    normed = torch.empty_like(x)
    norms.rms_norm[(len(x),)](
        x,
        weight,
        normed,
        x.shape[1],
        eps,
        BLOCK=triton.next_power_of_2(x.shape[1]),
        **_start(len(x), x.device),
        num_warps=8,
    )
    return normed


def add_rms_norm(x: Tensor, change: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(n, width) x + change, and its norm."""
    total, normed = torch.empty_like(x), torch.empty_like(x)
    block = triton.next_power_of_2(x.shape[1])
    norms.add_rms_norm[(len(x),)](
        x, change, weight, total, normed, x.shape[1], eps, BLOCK=block, **_start(len(x), x.device), num_warps=8
    )
    return total, normed


def add_layer_norm(
    x: Tensor, change: Tensor, scale: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(..., width) x + scale * change, where (width,) `scale` may be left out, and its layer norm."""
    width = x.shape[-1]
    total, normed = torch.empty_like(x), torch.empty_like(x)
    block = triton.next_power_of_2(width)
    norms.add_layer_norm[(x.numel() // width,)](
        x,
        change,
        weight if scale is None else scale,
        weight,
        bias,
        total,
        normed,
        width,
        eps,
        SCALED=scale is not None,
        BLOCK=block,
        num_warps=4,
    )
    return total, normed


def rotate_and_store(
    projected: Tensor, rotation: tuple[Tensor, Tensor], cache: KeyValueCache, layer: int, heads: int
) -> Tensor:
    """Rotate queries and keys by their positions, and put keys and values behind the cache's committed ones.

    Args:
        projected: (n, 3 * heads * head_size) queries, keys and values.
        rotation: (n, head_size) cosines and sines.

    Returns:
        (heads, n, head_size) queries, in the memory order of (n, heads, head_size), which attention's result takes on.
    """
    count, head_size = len(projected), projected.shape[1] // (3 * heads)
    queries = torch.empty(count, heads, head_size, dtype=projected.dtype, device=projected.device)
    keys, values = cache.keys[layer], cache.values[layer]
    attention.rotate_and_store[(count, triton.cdiv(heads, HEADS_AT_ONCE))](
        projected,
        *rotation,
        queries,
        keys,
        values,
        cache.length,
        keys.stride(0),
        heads,
        head_size,
        HALF=triton.next_power_of_2(head_size // 2),
        BLOCK_HEADS=HEADS_AT_ONCE,
        num_warps=4,
    )
    return queries.transpose(0, 1)


def attends(projected: Tensor, head_size: int) -> bool:
    """Whether `attend` can be used: at most a tree of 16-bit rows, and heads that matrix units can multiply."""
    return (
        len(projected) <= MOST_QUERIES
        and projected.dtype != torch.float32  # the matrix units would round it
        and head_size in (32, 64, 128)
        and usable(projected)
    )


def attend(
    projected: Tensor, rotation: tuple[Tensor, Tensor], cache: KeyValueCache, layer: int, heads: int, bias: Tensor
) -> Tensor:
    """`rotate_and_store`, and attention over the cache and the new positions.

    Args:
        bias: (n, window) added to the scores; every row admits itself.

    Returns:
        (n, heads * head_size).
    """
    count, width = len(projected), projected.shape[1] // 3
    head_size, device = width // heads, projected.device
    mixed = torch.empty(count, width, dtype=projected.dtype, device=device)
    keys, values = cache.keys[layer], cache.values[layer]
    blocks = triton.cdiv(count, MOST_ROWS)
    parts = triton.cdiv(cache.length, ATTENTION_STEP) + blocks
    highests, totals = torch.empty(2, heads, parts, count, dtype=torch.float32, device=device)
    sums = torch.empty(heads, parts, count, head_size, dtype=torch.float32, device=device)
    attention.attend[(heads, blocks, parts)](
        projected,
        *rotation,
        keys,
        values,
        bias,
        highests,
        totals,
        sums,
        cache.arrived,
        mixed,
        count,
        cache.length,
        bias.shape[1],
        keys.stride(0),
        width,
        head_size**-0.5,
        HALF=head_size // 2,
        BLOCK_ROWS=MOST_ROWS,
        BLOCK_KEYS=ATTENTION_STEP,
        PARTS=parts,
        **_start(count, device),
        num_warps=4,
    )
    return mixed


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, width) to 8-bit floats and (n, 1) scales: see `specvla_ros.vla.quantised.quantise_rows`."""
    count, width = x.shape
    values = torch.empty(count, width, dtype=FLOAT8, device=x.device)
    scale = torch.empty(count, 1, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    products.quantise_rows[(count,)](x, values, scale, width, LARGEST_FLOAT8, BLOCK=block, num_warps=8)
    return values, scale


def gate(gate_up: Tensor) -> Tensor:
    """(n, 2 * width) to (n, width): SiLU of the first half times the second."""
    count, width = len(gate_up), gate_up.shape[1] // 2
    gated = torch.empty(count, width, dtype=gate_up.dtype, device=gate_up.device)
    products.gate[(count, triton.cdiv(width, 1024))](gate_up, gated, width, BLOCK=1024, num_warps=4)
    return gated
