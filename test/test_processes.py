"""Children compute on one thread; the parent's own setting comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specvla_ros.processes import THREAD_COUNTS, single_threaded_children, usable_cores


def test_children_get_one_thread_and_the_parent_keeps_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    show = [sys.executable, "-c", f"import os; print(*(os.environ[name] for name in {THREAD_COUNTS}))"]
    with single_threaded_children():
        assert subprocess.run(show, capture_output=True, text=True, check=True).stdout.split() == ["1", "1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ


def test_cores_that_are_not_this_processs_do_not_count() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [min(allowed)])
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cores() == len(allowed)


def test_a_child_ends_when_its_parent_is_killed() -> None:
    code = (
        "import multiprocessing, time\n"
        "from specvla_ros.processes import end_with_parent\n"
        "def work(connection):\n"
        "    end_with_parent()\n"
        "    connection.send(multiprocessing.current_process().pid)\n"
        "    time.sleep(600)\n"
        "context = multiprocessing.get_context('fork')\n"
        "ours, theirs = context.Pipe()\n"
        "context.Process(target=work, args=(theirs,)).start()\n"
        "print(ours.recv(), flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20.0
    while is_running(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    """Whether it exists and is no zombie, which nobody may be there to collect."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
