"""`specvla eval` with the model in the parent process, on a GPU where there is one, and with fake scenes."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from stand_ins import FakeScenesRig

from specvla_ros.evaluation.evaluate import evaluate
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.speed_run import run_speeds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def options(output: Path, **values: Any) -> EvaluationOptions:
    chosen = {"device": DEVICE, "dtype": "float32", "max_steps": 12, "trials": 2, "draft": "hold", **values}
    return EvaluationOptions("libero_spatial", output, **chosen)


def play(settings: EvaluationOptions) -> list[dict[str, Any]]:
    """The episodes without what they took."""
    results = evaluate(settings, Console(file=io.StringIO()), FakeScenesRig())
    return [{**asdict(one), "milliseconds": {}} for one in results]


@pytest.mark.parametrize("threshold", [0, 9])
def test_one_model_that_decides_for_two_scenes_gives_the_episodes_of_a_model_each_on_the_cpu(
    tmp_path: Path, threshold: int
) -> None:
    settings = options(tmp_path / "served", threshold=threshold, workers=2, one_policy=True)
    served = play(settings)
    own = play(replace(settings, output=tmp_path / "own", device="cpu", one_policy=False))
    assert len(served) == 6 and sum(one["success"] for one in served) == 2
    assert served == own


def test_an_episode_is_played_in_real_time_with_the_devices_own_latency(tmp_path: Path) -> None:
    (episode,) = play(options(tmp_path, tasks=(0,), trials=1, latency="measured", one_policy=True))
    assert episode["steps"] == 12 and 0 < episode["actions"] <= 12


def test_drafts_are_timed_on_the_device(tmp_path: Path) -> None:
    sweep = [options(tmp_path, threshold=threshold) for threshold in (0, 9)]
    (report,) = run_speeds(sweep, 9, tmp_path, FakeScenesRig()).values()
    assert [(row["draft"], row["threshold"]) for row in report["rows"]] == [("none", 0), ("hold", 0), ("hold", 9)]
    assert all(row["speed_up"] > 0 for row in report["rows"])
    assert report["device"].startswith("the CPU") == (DEVICE == "cpu")
