"""The calls of `specvla eval` behind a folder of results."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from specvla_ros.evaluation.latency import LOCKSTEP
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.sweep import combinations, threshold_text
from specvla_ros.report.films import film_path
from specvla_ros.report.runs import Run
from specvla_ros.shipped import NAME

SWEPT = ("draft", "threshold", "latency")
TASKS = {"libero_90": 90}
"""Tasks of a suite, where there are not ten."""


def commands(folder: Path, runs: Sequence[Run], speeds: Mapping[Path, dict[str, Any]]) -> list[str]:
    """What makes these evaluations, or goes on with them; a sweep is one command."""
    timed = {place: int(speed["frames"]) for place, speed in speeds.items()}
    alike: dict[EvaluationOptions, list[Run]] = {}
    for run in runs:
        common = replace(run.options, draft="none", threshold=0, latency=LOCKSTEP, output=folder)
        alike.setdefault(common, []).append(run)
    return [
        _command(common if len(sweep) > 1 else sweep[0].options, sweep, timed)
        for common, group in alike.items()
        for sweep in _sweeps(common, group)
    ]


def _sweeps(common: EvaluationOptions, runs: Sequence[Run]) -> list[Sequence[Run]]:
    """Few that together are these evaluations and no others: each is every combination of what was swept in it."""
    sweep = combinations(common, *_swept(runs).values())
    if len(runs) == 1 or {one.output for one in sweep} == {run.folder for run in runs}:
        return [runs]
    ways = []
    for name, values in _swept(runs).items():
        parts = [[run for run in runs if getattr(run.options, name) == value] for value in values]
        if len(parts) > 1:
            ways.append([one for part in parts for one in _sweeps(common, part)])
    return min(ways, key=len)


def _swept(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The values of each of SWEPT."""
    return {name: list(dict.fromkeys(getattr(run.options, name) for run in runs)) for name in SWEPT}


def _command(options: EvaluationOptions, runs: Sequence[Run], timed: dict[Path, int]) -> str:
    words, swept = base_words(options), _swept(runs)
    if options.tasks != tuple(range(TASKS.get(options.suite, 10))):
        words += [word for task in options.tasks for word in ("--task", str(task))]
    words += ["--trials", str(options.trials)]
    words += [word for draft in swept["draft"] for word in ("--draft", draft)]
    words += [word for one in swept["threshold"] for word in ("--threshold", threshold_text(one))]
    if swept["latency"] != [LOCKSTEP]:
        words += [word for latency in swept["latency"] for word in ("--latency", latency)]
        words += ["--hold-time", f"{options.hold_time:g}"]
    words.append("--fast-rendering" if options.fast_rendering else "--no-fast-rendering")
    if options.max_steps:
        words += ["--max-steps", str(options.max_steps)]
    if options.ros:
        words.append("--ros")
    if filmed := [one.episode for run in runs for one in run.episodes if film_path(run.folder, one).is_file()]:
        words += ["--videos", str(1 + max(filmed))]
    # Once: several sweeps may have gone into one folder, and the measurement is its last.
    if options.output in timed and not runs[0].realtime:
        words += ["--speed", str(timed.pop(options.output))]
    return shlex.join([*words, "--output", short_path(options.output)])


def base_words(options: EvaluationOptions) -> list[str]:
    """`specvla eval` on the suite and the checkpoint."""
    words = ["specvla", "eval", "--suite", options.suite]
    if Path(options.checkpoint).name == NAME:
        return words
    return [*words, "--checkpoint", short_path(Path(options.checkpoint))]


def short_path(path: Path) -> str:
    """Relative to where the report is made, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
