"""A sweep's evaluations side by side, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import JustifyMethod
from rich.table import Table

from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.runs import find_runs
from specvla_ros.evaluation.tables import Summary, markdown, success_cells, write_tables
from specvla_ros.evaluation.threshold import threshold_text

WORDS = ("suite", "draft", "latency")
EXTRA = ("suite", "seed")
"""Shown where a table has several."""
HEADINGS = (
    "draft",
    "threshold",
    "latency",
    "solved",
    "95 % interval",
    "steps",
    "tokens per forward",
    "accepted per round",
    "rounds",
    "forwards",
    "ms",
    "p95 ms",
    "bins off",
)
ON_SCREEN = ("draft", "threshold", "latency", "solved", "95 % interval", "steps", "tokens per forward", "ms")


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """An evaluation: what it ran under, and all its episodes pooled."""

    options: EvaluationOptions
    total: Summary

    def to_dict(self) -> dict[str, Any]:
        """For a program: the conditions that a sweep varies, the folder's name, and the figures."""
        return {
            **self.options.swept(),
            "folder": self.options.output.name,
            **{name: value for name, value in asdict(self.total).items() if name not in ("task", "language")},
        }

    def cells(self) -> list[str]:
        """For people, by EXTRA and HEADINGS."""
        options, total = self.options, self.total
        return [
            options.suite,
            str(options.seed),
            options.draft,
            threshold_text(options.threshold),
            options.latency,
            *success_cells(total),
            f"{total.steps:.1f}",
            f"{total.tokens_per_forward:.2f}",
            f"{total.drafts_per_round:.2f}",
            f"{total.rounds_per_action:.2f}",
            f"{total.forwards_per_action:.2f}",
            f"{total.median_ms:.1f}",
            f"{total.p95_ms:.1f}",
            f"{total.deviation:.2f}",
        ]


def comparison_table(rows: Sequence[ConditionRow]) -> Table:
    """For the screen, which is narrow: the figures that decide."""
    table = Table()
    headings = [*_several(rows), *ON_SCREEN]
    for heading in headings:
        # No heading is broken within a word.
        least = max(map(len, heading.split()))
        justify: JustifyMethod = "left" if heading in WORDS else "right"
        table.add_column(heading, justify=justify, overflow="fold", min_width=least)
    for cells in _chosen(rows, headings):
        table.add_row(*cells)
    return table


def comparison_dict(rows: Sequence[ConditionRow]) -> dict[str, Any]:
    """For a program: `conditions`, a list."""
    return {"conditions": [row.to_dict() for row in rows]}


def other_rows(folder: Path, sweep: Sequence[EvaluationOptions]) -> list[ConditionRow]:
    """The evaluations of other sweeps in the folder, as far as they have come.

    Raises:
        ConfigurationError: one of them cannot be read.
    """
    renewed = {options.output for options in sweep}
    return [ConditionRow(run.options, run.total) for run in find_runs(folder) if run.folder not in renewed]


def write_comparison(rows: Sequence[ConditionRow], folder: Path) -> None:
    """summary.json and summary.md of a folder's evaluations."""
    headings = [*_several(rows), *HEADINGS]
    write_tables(comparison_dict(rows), markdown(headings, WORDS, _chosen(rows, headings)), folder)


def _several(rows: Sequence[ConditionRow]) -> list[str]:
    """Those of EXTRA that the rows differ in."""
    return [name for name in EXTRA if len({getattr(row.options, name) for row in rows}) > 1]


def _chosen(rows: Sequence[ConditionRow], headings: Sequence[str]) -> list[list[str]]:
    """The cells under these headings."""
    named = [dict(zip((*EXTRA, *HEADINGS), row.cells(), strict=True)) for row in rows]
    return [[cells[heading] for heading in headings] for cells in named]
