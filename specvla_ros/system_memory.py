"""How much of the machine's own memory is left, or of what a container has of it."""

from __future__ import annotations

import os
from pathlib import Path

MACHINE = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")
"""What a container's processes see of their own group; a machine's root group has no limit and none of the files."""


def available_memory() -> int:
    """Bytes that a new process can have; what the system keeps of files it would give up."""
    return min([_machine(), *_container()])


def _machine() -> int:
    kibibytes = _numbers(MACHINE).get("MemAvailable:")
    return 1024 * kibibytes if kibibytes else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container() -> list[int]:
    """Its limit less what its processes hold; nothing where there is no limit."""
    limit = CONTAINER / "memory.max"
    text = limit.read_text().strip() if limit.is_file() else "max"
    held = _numbers(CONTAINER / "memory.stat").get("anon", 0)
    return [int(text) - held] if text.isdecimal() else []


def _numbers(path: Path) -> dict[str, int]:
    """By their names, of a file that has a line for each."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
    return {words[0]: int(words[1]) for words in lines}
