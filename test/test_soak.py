"""`specvla soak` with processes of its own, and its figures."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rich.console import Console
from test_cli import specvla

from specvla_ros.demo import Watch
from specvla_ros.errors import ConfigurationError
from specvla_ros.soak import Sample, SoakOptions, resident_mib, run_soak, summarise

T = TypeVar("T")


def test_a_soak_writes_memory_and_latency_over_time(tmp_path: Path) -> None:
    result = specvla("soak", "--policy", "fake", "--minutes", "0.08", "--output", tmp_path, "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    with (tmp_path / "soak.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(report["samples"]) >= 2
    assert all(float(row["memory_mib"]) > 10.0 and float(row["p95_ms"]) > 0.0 for row in rows)
    assert report["commands"] == sum(int(row["commands"]) for row in rows) > 20
    assert "</svg>" in (tmp_path / "soak.svg").read_text()


def test_a_policy_that_cannot_be_loaded_ends_a_soak_with_the_reason(tmp_path: Path) -> None:
    result = specvla("soak", "--device", "cuda:99", "--output", tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "the policy node reports: the policy was not loaded" in result.stderr and "'cuda:99'" in result.stderr


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_ends_takes_its_node_along(tmp_path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "specvla_ros.cli", "soak", "--policy", "fake", "--output", str(tmp_path)]
    soak = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        node = wait_until(lambda: child_of(soak.pid))
        wait_until(lambda: "policy loaded" in (tmp_path / "policy_node.log").read_text())
        soak.send_signal(ending)
        assert soak.wait(30) in (128 + ending, -ending)
    finally:
        soak.kill()
        soak.wait()
    wait_until(lambda: not is_running(node))


def child_of(parent: int) -> int:
    """A process that it started, 0 where there is none."""
    processes = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return next((pid for pid in processes if state_and_parent(pid)[1] == str(parent)), 0)


def is_running(pid: int) -> bool:
    """A process that nobody waits for stays a zombie where no init collects it."""
    return state_and_parent(pid)[0] not in ("", "Z")


def state_and_parent(pid: int) -> tuple[str, str]:
    """Letter and number that Linux says; empty once the process is gone."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return "", ""
    return state, parent


def wait_until(find: Callable[[], T]) -> T:
    """What it finds at last."""
    end = time.monotonic() + 60.0
    while not (found := find()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def test_another_nodes_error_does_not_end_a_demo() -> None:
    watch = Watch()
    broken = DiagnosticStatus(level=DiagnosticStatus.ERROR, name="joystick", message="it is not there")
    watch.on_diagnostics(DiagnosticArray(status=[broken]))
    assert not watch.failure
    broken.name = "specvla"
    watch.on_diagnostics(DiagnosticArray(status=[broken]))
    assert watch.failure == "it is not there"


def test_a_demo_ends_where_another_node_publishes_commands_too() -> None:
    watch = Watch()
    watch.on_publishers(1)
    assert not watch.failure
    watch.on_publishers(2)
    assert "2 nodes publish ee_command" in watch.failure and "ROS_DOMAIN_ID" in watch.failure


def test_without_matplotlib_a_soak_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    options = SoakOptions(policy={"policy": "fake"}, minutes=0.05, rate=10.0, output=tmp_path / "soak")
    with pytest.raises(ConfigurationError, match=r"the soak's plot needs matplotlib.*pip install matplotlib"):
        run_soak(options, Console())
    assert not options.output.exists()


def test_growth_is_that_of_the_second_half() -> None:
    memory = [100.0, 200.0, 300.0, 300.0, 301.0, 302.0]
    samples = [Sample(float(index), mib, 10, 1.0, 2.0) for index, mib in enumerate(memory)]
    report = summarise(samples)
    assert report["memory_growth_mib_per_hour"] == pytest.approx(60.0)
    assert report["commands"] == 60


def test_the_memory_of_this_process_is_more_than_nothing() -> None:
    assert 10.0 < resident_mib(os.getpid()) < 1e5
