"""What `specvla eval --speed` measured: drafts against plain greedy decoding, in turn on the same frames."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.runs import CONDITIONS, Run, short_draft
from specvla_ros.evaluation.speed_run import SPEED_FILES
from specvla_ros.evaluation.threshold import threshold_text
from specvla_ros.policy import PLAIN
from specvla_ros.report.table import Table

SAME = ("suite", "fingerprint")


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """Against plain greedy decoding; the interval is 95 %."""

    ratio: float
    interval: tuple[float, float]


def read_speeds(folder: Path) -> dict[Path, dict[str, Any]]:
    """The measurements in the folder and its sub-folders, by file.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    speeds: dict[Path, dict[str, Any]] = {}
    for path in (*sorted(folder.glob(SPEED_FILES)), *sorted(folder.glob(f"*/{SPEED_FILES}"))):
        try:
            speeds[path] = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{path} cannot be read ({error}); delete it and measure again") from error
    return speeds


def speed_ups(speeds: Iterable[dict[str, Any]], runs: Sequence[Run]) -> dict[Run, SpeedUp]:
    """Of the evaluations whose draft and threshold were measured on the same suite and weights."""
    found: dict[Run, SpeedUp] = {}
    for speed in speeds:
        for row in speed["rows"]:
            for run in runs:
                if belongs(speed, run) and all(run.conditions[name] == row[name] for name in CONDITIONS):
                    low, high = row["interval"]
                    found[run] = SpeedUp(row["speed_up"], (low, high))
    return found


def belongs(speed: dict[str, Any], run: Run) -> bool:
    """Whether a measurement is about the weights and the suite of an evaluation."""
    return all(run.conditions[name] == speed[name] for name in SAME)


def timed_drafts(speed: dict[str, Any]) -> str:
    """Which were timed, plain greedy decoding only where it was the only one."""
    drafts = dict.fromkeys(short_draft(row["draft"]) for row in speed["rows"] if row["draft"] != PLAIN)
    return ", ".join(drafts or [PLAIN])


def speed_table(name: str, speed: dict[str, Any]) -> Table:
    """A row for each draft and threshold."""
    rows = []
    for row in speed["rows"]:
        low, high = row["interval"]
        times = [f"{row[key]:.1f}" for key in ("mean_ms", "median_ms", "p95_ms")]
        ratio = [f"{row['speed_up']:.2f}x", f"{low:.2f} - {high:.2f}"]
        rows.append([short_draft(row["draft"]), threshold_text(row["threshold"]), *times, *ratio])
    headings = (*CONDITIONS, "ms mean", "ms median", "ms p95", "speed-up", "95 % interval")
    return Table(name, headings, rows, text_columns=2)
