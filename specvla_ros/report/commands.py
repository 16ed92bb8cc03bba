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
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.evaluation.runs import Run
from specvla_ros.evaluation.sweep import combinations
from specvla_ros.evaluation.threshold import threshold_text
from specvla_ros.policy import PLAIN
from specvla_ros.report.films import VIDEOS, film_path
from specvla_ros.shipped import NAME, hub_name
from specvla_ros.sim.holding import HOLD_TIME

SWEPT: dict[str, Any] = {"draft": PLAIN, "threshold": 0, "latency": LOCKSTEP, "suite": "libero_spatial", "seed": 0}
"""What one command takes several of, in the order of `combinations`, and what stands for all of them."""
AS_GIVEN = {"device": "cpu", "dtype": "float32", "weights": "full"}
"""Other conditions, and what they are on a CPU when they are not given."""
TASKS = {"libero_90": 90}
"""Tasks of a suite, where there are not ten."""


def commands(folder: Path, runs: Sequence[Run], speeds: Mapping[Path, dict[str, Any]]) -> list[str]:
    """What makes these evaluations, or goes on with them; a sweep is one command, and so is a measurement of speed."""
    timed = dict(speeds)
    alike: dict[EvaluationOptions, list[Run]] = {}
    for run in runs:
        alike.setdefault(replace(run.options, **SWEPT, output=folder), []).append(run)
    lines = [
        _command(common if len(sweep) > 1 else sweep[0].options, sweep, timed)
        for common, group in alike.items()
        for sweep in _sweeps(common, group)
    ]
    return lines + [line for path in speeds if path in timed and (line := _speed_command(path, runs, timed))]


def film_command(run: Run, episodes: Sequence[EpisodeResult], output: Path) -> str:
    """Plays an evaluation's episodes, and those before them, once more in another folder, and adds their films to it.

    A finished episode is not played again in its own folder; another one is no part of the report.
    """
    trials = 1 + max(one.episode for one in episodes)
    tasks = tuple(dict.fromkeys(one.task for one in episodes))
    options = replace(run.options, tasks=tasks, trials=trials, output=output)
    words = [*_words(options, [run]), "--videos", str(trials), "--output", short_path(output)]
    return f"{shlex.join(words)} && {shlex.join(['cp', '-r', short_path(output / VIDEOS), short_path(run.folder)])}"


def _speed_command(path: Path, runs: Sequence[Run], timed: dict[Path, dict[str, Any]]) -> str:
    """For a measurement of what no sweep has all of; its evaluations are there, so that they take no time again."""
    wanted, suite = _timed_conditions(timed[path]), timed[path]["suite"]
    beside = [run for run in runs if not run.realtime and run.suite == suite and run.folder.parent == path.parent]
    measured = [run for run in beside if _conditions([run]) <= wanted]
    if not measured or _conditions(measured) != wanted:
        return ""
    trials = min(run.options.trials for run in measured)
    return _command(replace(measured[0].options, output=path.parent, trials=trials), measured, timed)


def _timed_conditions(speed: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Draft and threshold of each row; plain greedy decoding, which is always timed, apart."""
    rows = [row for row in speed["rows"] if row["draft"] != PLAIN]
    return {(row["draft"], threshold_text(row["threshold"])) for row in rows}


def _conditions(runs: Sequence[Run]) -> set[tuple[str, str]]:
    return {(run.options.draft, threshold_text(run.options.threshold)) for run in runs if run.options.draft != PLAIN}


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
    # The same conditions twice, in folders with names of their own, are a command each.
    return min(ways, key=len, default=[[run] for run in runs])


def _swept(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The values of each of SWEPT."""
    return {name: list(dict.fromkeys(getattr(run.options, name) for run in runs)) for name in SWEPT}


def _command(options: EvaluationOptions, runs: Sequence[Run], timed: dict[Path, dict[str, Any]]) -> str:
    words = _words(options, runs)
    if filmed := [one.episode for run in runs for one in run.episodes if film_path(run.folder, one).is_file()]:
        words += ["--videos", str(1 + max(filmed))]
    if measured := _measurements(options.output, runs, timed):
        words += ["--speed", str(timed[measured[0]]["frames"])]
        for path in measured:
            del timed[path]
    return shlex.join([*words, "--output", short_path(options.output)])


def _measurements(folder: Path, runs: Sequence[Run], timed: Mapping[Path, dict[str, Any]]) -> list[Path]:
    """Files of the speed of a sweep in lockstep; none where not every suite was timed with all its conditions."""
    suites = {run.suite for run in runs}
    files = [
        path
        for path, speed in timed.items()
        if path.parent == folder and speed["suite"] in suites and _timed_conditions(speed) == _conditions(runs)
    ]
    return files if not runs[0].realtime and {timed[path]["suite"] for path in files} == suites else []


def _words(options: EvaluationOptions, runs: Sequence[Run]) -> list[str]:
    """What is evaluated, and under which conditions."""
    swept = _swept(runs)
    words = base_words(options, swept["suite"])
    words += [word for draft in swept["draft"] for word in ("--draft", draft)]
    words += [word for one in swept["threshold"] for word in ("--threshold", threshold_text(one))]
    if swept["latency"] != [LOCKSTEP]:
        words += [word for latency in swept["latency"] for word in ("--latency", latency)]
    if swept["latency"] != [LOCKSTEP] or options.hold_time != HOLD_TIME:
        words += ["--hold-time", f"{options.hold_time:g}"]
    if swept["seed"] != [0]:
        words += [word for seed in swept["seed"] for word in ("--seed", str(seed))]
    words += scene_words(options)
    if options.ros:
        words.append("--ros")
    return words


def _changed(options: EvaluationOptions, name: str) -> list[str]:
    """An option that is not what it is without being given, on a machine without a GPU."""
    value, usual = getattr(options, name), AS_GIVEN[name]
    return [] if value == usual else [f"--{name}", str(value)]


def base_words(options: EvaluationOptions, suites: Sequence[str]) -> list[str]:
    """`specvla eval` on the suites, with the checkpoint and the episodes of the options."""
    words = ["specvla", "eval", *(word for suite in suites for word in ("--suite", suite))]
    path = Path(options.checkpoint)
    if path.name != NAME:
        words += ["--checkpoint", hub_name(path) or short_path(path)]
    if any(options.tasks != tuple(range(TASKS.get(suite, 10))) for suite in suites):
        words += [word for task in options.tasks for word in ("--task", str(task))]
    return [*words, "--trials", str(options.trials)]


def scene_words(options: EvaluationOptions) -> list[str]:
    """What else decides an episode, whatever is swept."""
    words = ["--fast-rendering" if options.fast_rendering else "--no-fast-rendering"]
    words += [word for name in AS_GIVEN for word in _changed(options, name)]
    return [*words, "--max-steps", str(options.max_steps)] if options.max_steps else words


def short_path(path: Path) -> str:
    """Relative to where the report is made, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
