"""How much of the machine's own memory is left."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory() -> int:
    """Bytes that a new process can have; what the system keeps of files it would give up."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    kibibytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kibibytes[0] if kibibytes else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
