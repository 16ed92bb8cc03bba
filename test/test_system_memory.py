from __future__ import annotations

from pathlib import Path

import pytest

from specvla_ros import system_memory
from specvla_ros.system_memory import available_memory

GIB = 1 << 30


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With 8 GiB to be had, in no container."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {GIB // 64} kB\nMemAvailable: {GIB // 128} kB\nHugePages_Total: 0\n")
    monkeypatch.setattr(system_memory, "MACHINE", tmp_path / "meminfo")
    monkeypatch.setattr(system_memory, "CONTAINER", tmp_path)
    return tmp_path


def test_what_the_system_says_is_available(system: Path) -> None:
    assert available_memory() == 8 * GIB


@pytest.mark.parametrize(("limit", "expected"), [("max", 8 * GIB), (str(4 * GIB), 3 * GIB), (str(99 * GIB), 8 * GIB)])
def test_a_containers_limit_counts_less_what_it_holds(system: Path, limit: str, expected: int) -> None:
    (system / "memory.max").write_text(f"{limit}\n")
    (system / "memory.stat").write_text(f"anon {GIB}\nfile {2 * GIB}\n")
    assert available_memory() == expected


def test_a_system_without_these_files_has_some_memory(system: Path) -> None:
    (system / "meminfo").unlink()
    assert available_memory() > 0
