"""What `specvla eval --speed` measured: drafts against plain greedy decoding, in turn on the same frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.draft_names import draft_names
from specvla_ros.evaluation.runs import CONDITIONS, Run
from specvla_ros.evaluation.speed_run import SPEED_FILES
from specvla_ros.evaluation.threshold import threshold_text
from specvla_ros.policy import PLAIN
from specvla_ros.report.table import Table

SAME = (*CONDITIONS, "fingerprint")
"""What a row and its evaluation have in common, besides the suite."""
ALIKE = ("suite", "dtype", "weights", "fast_rendering", "image_size")
"""What a measurement and its evaluations have in common."""


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """Of one draft and threshold.

    Attributes:
        ratio: how many times as fast as plain greedy decoding; its 95 % interval.
        median_ms, p95_ms: of an action, on the measurement's frames.
    """

    ratio: float
    interval: tuple[float, float]
    median_ms: float
    p95_ms: float


def read_speeds(folder: Path) -> dict[Path, dict[str, Any]]:
    """The measurements in the folder and its sub-folders, by file.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    speeds: dict[Path, dict[str, Any]] = {}
    for path in (*sorted(folder.glob(SPEED_FILES)), *sorted(folder.glob(f"*/{SPEED_FILES}"))):
        try:
            speeds[path] = _current(json.loads(path.read_text()))
            speed_table(path.stem, speeds[path])  # that it can be shown is found out here, where the file has a name
            speed_note(speeds[path])
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
            raise ConfigurationError(f"{path} cannot be read ({error}); delete it and measure again") from error
    return speeds


def _current(speed: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier version of this package wrote too: of one task, with the target's fingerprint alone."""
    rows = [{"fingerprint": speed["fingerprint"], **row} for row in speed["rows"]]
    return {
        **speed,
        "suite": speed["suite"],
        "rows": rows,
        "tasks": speed["tasks"] if "tasks" in speed else [speed["task"]],
    }


def speed_ups(speeds: Iterable[Mapping[str, Any]], runs: Sequence[Run]) -> dict[Run, SpeedUp]:
    """Of the evaluations whose draft and threshold were measured on the same suite and weights; of several
    measurements that of most frames.
    """
    found: dict[Run, SpeedUp] = {}
    for speed in sorted(speeds, key=lambda one: one["frames"]):
        for row in speed["rows"]:
            for run in runs:
                if run.suite == speed["suite"] and all(run.conditions[name] == row[name] for name in SAME):
                    low, high = row["interval"]
                    found[run] = SpeedUp(row["speed_up"], (low, high), row["median_ms"], row["p95_ms"])
    return found


def belongs(speed: Mapping[str, Any], runs: Sequence[Run]) -> bool:
    """Whether a measurement is about the weights, the suite and the pictures of some of these evaluations.

    An earlier version of this package did not write all of `ALIKE`.
    """
    fingerprints = {row["fingerprint"] for row in speed["rows"]}
    return any(
        run.conditions["fingerprint"] in fingerprints
        and all(speed.get(name, run.conditions[name]) == run.conditions[name] for name in ALIKE)
        for run in runs
    )


def timed_drafts(speed: dict[str, Any]) -> str:
    """Which were timed, plain greedy decoding only where it was the only one."""
    drafts = dict.fromkeys(draft_names([row for row in speed["rows"] if row["draft"] != PLAIN]))
    return ", ".join(drafts or [PLAIN])


def speed_table(name: str, speed: dict[str, Any]) -> Table:
    """A row for each draft and threshold."""
    rows = []
    for row, draft in zip(speed["rows"], draft_names(speed["rows"]), strict=True):
        low, high = row["interval"]
        times = [f"{row[key]:.1f}" for key in ("mean_ms", "median_ms", "p95_ms")]
        ratio = [f"{row['speed_up']:.2f}x", f"{low:.2f} - {high:.2f}"]
        rows.append([draft, threshold_text(row["threshold"]), *times, *ratio])
    headings = (*CONDITIONS, "ms mean", "ms median", "ms p95", "speed-up", "95 % interval")
    return Table(name, headings, rows, text_columns=2)


def speed_note(speed: Mapping[str, Any]) -> str:
    """What was timed, and what the interval is of."""
    tasks = [str(task) for task in speed["tasks"]]
    several = len(tasks) > 1
    which = (
        f"tasks {', '.join(tasks)}, from the beginning of each one's first episode" if several else f"task {tasks[0]}"
    )
    unit = "tasks: a task's frames are drawn together" if several else "frames, which resemble each other"
    return (
        f"{speed['frames']} frames of {which}, as plain greedy decoding drives it, in turn through every draft and "
        "through plain greedy decoding, with the same weights, cache and kernels, on "
        f"{speed['device']}. The interval is a bootstrap over the {unit}."
    )
