"""`specvla eval` with the model in the parent process, on a GPU where there is one, and with fake scenes."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from stand_ins import FakeScenesRig
from untrained import CONFIG

from specvla_ros.bench.random_checkpoint import write_random_checkpoint
from specvla_ros.bench.sizes import SIZES
from specvla_ros.evaluation.evaluate import evaluate
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.speed_run import run_speeds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IS_LARGE = DEVICE == "cuda" and torch.cuda.mem_get_info()[0] > 24e9
SIZE = SIZES["7b"] if IS_LARGE else CONFIG


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


@pytest.fixture
def random_checkpoint(tmp_path: Path) -> Iterator[Path]:
    """Random weights of the released model's size, in its layout: 15 GB; without such a GPU of a tiny one's."""
    directory = tmp_path / "checkpoint"
    write_random_checkpoint(directory, SIZE, DEVICE)
    if IS_LARGE:
        torch.cuda.reset_peak_memory_stats()
    yield directory
    shutil.rmtree(directory)


def test_a_checkpoint_of_the_released_size_is_evaluated_and_timed_within_the_memory_of_one_model(
    tmp_path: Path, random_checkpoint: Path
) -> None:
    checkpoint = {"checkpoint": str(random_checkpoint), "dtype": "bfloat16", "draft": "eagle"}
    settings = options(tmp_path, **checkpoint, trials=1, max_steps=3, one_policy=True, workers=2)
    assert [one["actions"] for one in play(settings)] == [3, 3, 3]
    sweep = [replace(settings, threshold=threshold) for threshold in (0, 3, 9, 15)]
    (report,) = run_speeds(sweep, 6, tmp_path, FakeScenesRig()).values()
    for row in report["rows"]:
        print(f"{row['draft']}, r = {row['threshold']}: {row['median_ms']:.1f} ms, {row['speed_up']:.2f}")
    assert len(report["rows"]) == 5
    if IS_LARGE:
        held = torch.cuda.max_memory_reserved()
        print(f"7B, two scenes, then five rows: {held / 1e9:.1f} GB reserved")
        assert held < 18e9
