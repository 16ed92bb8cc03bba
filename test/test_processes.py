"""Children compute on one thread; the parent's own setting comes back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from specvla_ros.processes import THREAD_COUNTS, single_threaded_children


def test_children_get_one_thread_and_the_parent_keeps_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    show = [sys.executable, "-c", f"import os; print(*(os.environ[name] for name in {THREAD_COUNTS}))"]
    with single_threaded_children():
        assert subprocess.run(show, capture_output=True, text=True, check=True).stdout.split() == ["1", "1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ
