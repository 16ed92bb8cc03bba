"""What a benchmark ran on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch

from specvla_ros.bench.rates import Rates
from specvla_ros.machine import machine_facts

GPU_FIELDS = {"driver_version": "driver", "clocks.sm": "GPU clock", "clocks.mem": "GPU memory clock"}
UNKNOWN = "unknown"


def conditions(device: torch.device, rates: Rates, memory: Mapping[str, int]) -> dict[str, str]:
    """Machine and versions, what else loads it, clocks as read now, threads, and the device's best rates.

    Args:
        memory: bytes on a GPU, by what they hold.
    """
    found = machine_facts()
    found["threads"] = str(torch.get_num_threads())
    found["load"] = f"{os.getloadavg()[0]:.1f} processes in the last minute, this one among them"
    found["processor clock"] = _processor_clock()
    if device.type == "cuda":
        found.update(_gpu(device))
        found.update({f"GPU memory, {what}": f"{size / 1e9:.1f} GB" for what, size in memory.items()})
    found["copy bandwidth"] = f"{rates.bandwidth / 1e9:.1f} GB/s, read and written"
    found["matrix rate"] = f"{rates.arithmetic / 1e12:.3f} TFLOP/s"
    return found


def _processor_clock() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    clocks = [float(line.split(":", 1)[1]) for line in lines if line.startswith("cpu MHz")]
    return f"{max(clocks):.0f} MHz" if clocks else UNKNOWN


def _gpu(device: torch.device) -> dict[str, str]:
    """Driver and clocks by the driver's own tool, which counts also the GPUs that CUDA_VISIBLE_DEVICES hides."""
    uuid = torch.cuda.get_device_properties(device).uuid
    command = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return dict.fromkeys(GPU_FIELDS.values(), UNKNOWN)
    return dict(zip(GPU_FIELDS.values(), (value.strip() for value in line.strip().split(",")), strict=True))
