"""How `specvla demo` starts its nodes and ends with them; stand-ins for both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rich.console import Console
from typer.testing import CliRunner

from specvla_ros import demo
from specvla_ros.cli import app
from specvla_ros.demo import DemoOptions, Watch, run_demo
from specvla_ros.errors import CheckpointError, ConfigurationError, SimulationError
from specvla_ros.msg import DecodeStats

POLICY = {"checkpoint": "", "draft": "hold", "threshold": 0}


def nodes(code: str, seen: dict[str, Any]) -> Callable[..., Any]:
    """In place of `node_process`: processes that run a line of Python and keep what they were given."""

    @contextmanager
    def node_process(name: str, config: str, parameters: dict[str, Any], output: Path) -> Iterator[Any]:
        seen[name] = parameters
        with (output / f"{name}.log").open("wb") as log:
            child = subprocess.Popen([sys.executable, "-c", code], stdout=log)
            yield child
            child.wait()

    return node_process


def test_a_demo_whose_node_was_ended_by_somebody_else_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(demo, "node_process", nodes("", seen))
    with pytest.raises(SimulationError, match=r"(policy_node|libero_bridge) was ended before the episode was over"):
        run_demo(DemoOptions(POLICY, {}, tmp_path), Console(quiet=True))
    assert seen["libero_bridge"]["policy_timeout"] >= 600.0, "a large model loads for minutes"
    assert seen["policy_node"]["max_image_age"] == 0.0, "and may take longer than a second for an action"


def test_what_a_node_that_failed_said_is_shown_whatever_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'no place \xff in memory\n'); sys.exit(3)"
    monkeypatch.setattr(demo, "node_process", nodes(code, {}))
    with pytest.raises(SimulationError, match=r"ended with exit code 3:\nno place . in memory"):
        run_demo(DemoOptions(POLICY, {}, tmp_path), Console(quiet=True))


def test_a_checkpoint_that_is_not_there_is_told_before_a_node_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(demo, "node_process", nodes("", seen))
    with pytest.raises(CheckpointError, match="/nowhere is not a directory"):
        run_demo(DemoOptions({**POLICY, "checkpoint": "/nowhere"}, {}, tmp_path), Console(quiet=True))
    assert not seen


def test_an_error_that_does_not_pass_ends_a_demo_and_one_that_does_goes_by() -> None:
    watch = Watch()
    broken = DiagnosticArray(
        status=[DiagnosticStatus(level=DiagnosticStatus.ERROR, name="specvla", message="no memory")]
    )
    watch.on_stats(DecodeStats(accept_length=3.5))
    watch.on_diagnostics(broken)
    assert not watch.failure
    watch.last_action -= 61.0
    watch.on_diagnostics(broken)
    assert watch.failure == "no memory"


@pytest.mark.parametrize(
    ("command", "runs"),
    [
        (["demo"], "specvla_ros.demo.run_demo"),
        (["record", "bag"], "specvla_ros.bags.record.record"),
        (["soak"], "specvla_ros.soak.run_soak"),
    ],
)
def test_a_threshold_for_each_dimension_and_the_key_reach_the_policy_node(
    command: list[str], runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(runs, lambda options, *_: given.append(options.policy))
    for words in (["--threshold", "3"], ["--threshold", "9,9,9,3,3,3,0", "--unnorm-key", "bridge_orig"]):
        assert CliRunner().invoke(app, [*command, *words], catch_exceptions=False).exit_code == 0
    one, seven = given
    assert one["threshold"] == 3 and "thresholds" not in one and one["unnorm_key"] == "", "one stays live"
    assert seven["thresholds"] == [9, 9, 9, 3, 3, 3, 0] and seven["unnorm_key"] == "bridge_orig"
    for wrong in (["--threshold", "256"], ["--threshold", "1,2"], ["--threshold", "3", "--draft", "none"]):
        with pytest.raises(ConfigurationError):
            CliRunner().invoke(app, [*command, *wrong], catch_exceptions=False)
