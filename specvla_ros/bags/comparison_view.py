"""A comparison for people: tables for the terminal, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from specvla_ros.errors import ConfigurationError
from specvla_ros.plotting import require_matplotlib
from specvla_ros.report.palette import SERIES, SURFACE
from specvla_ros.report.plots import WIDTH
from specvla_ros.report.svg import style

FORMATS = (".svg", ".png", ".pdf")
MARGIN = 1.15
"""An axis goes so far beyond its largest value."""
FIGURES = ("mean", "p95", "max")


def print_comparison(report: dict[str, Any], console: Console) -> None:
    """What each condition costs, and how far its actions are from the first one's."""
    conditions = report["conditions"]
    table = Table(title=f"{report['frames']} frames")
    for heading in ("condition", "tokens per forward", "ms p50", "ms p95", "frames with the same tokens"):
        table.add_column(heading, justify="left" if heading == "condition" else "right", overflow="fold")
    for one in conditions:
        times = one["milliseconds"]
        table.add_row(
            one["label"],
            f"{one['accept_length']:.2f}",
            f"{times['p50']:.1f}",
            f"{times['p95']:.1f}",
            f"{one['frames_equal']} ({one['frames_equal'] / report['frames']:.0%})",
        )
    console.print(table)
    for one in conditions[1:]:
        console.print(_deviations(report, one))
    if "unit" in report["units"]:
        console.print("A unit is what the checkpoint's data was recorded in; its controller says what that moves.")


def _deviations(report: dict[str, Any], one: dict[str, Any]) -> Table:
    """By dimension."""
    table = Table(title=f"{one['label']}: deviation from {report['reference']}")
    for heading in ("dimension", "bins: mean", "p95", "largest", "unit", "mean", "p95", "largest"):
        table.add_column(heading, justify="left" if heading in ("dimension", "unit") else "right", overflow="fold")
    for index, (dimension, unit) in enumerate(zip(report["dimensions"], report["units"], strict=True)):
        bins = [f"{one['bins'][figure][index]:.1f}" for figure in FIGURES]
        units = [f"{one['units'][figure][index]:.4f}" for figure in FIGURES]
        table.add_row(dimension, *bins, unit, *units)
    return table


def require_plottable(file: Path) -> None:
    """Before anything is decoded for it.

    Raises:
        ConfigurationError: the file's ending is none of FORMATS, or matplotlib is not installed.
    """
    if file.suffix not in FORMATS:
        raise ConfigurationError(f"plot {file} ends in {file.suffix!r}; expected one of {', '.join(FORMATS)}")
    require_matplotlib(f"plot {file}")


def write_plot(report: dict[str, Any], file: Path) -> None:
    """Deviations in bins by dimension, mean as a bar and p95 as a line; and what that buys: latency, accept length.

    Raises:
        ConfigurationError: matplotlib is not installed, or the file cannot be written.
    """
    require_plottable(file)
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        deviations, costs = figure.subplots(1, 2, width_ratios=[5, 3])
        conditions: Sequence[dict[str, Any]] = report["conditions"]
        places = np.arange(len(report["dimensions"]))
        width = 0.8 / (len(conditions) - 1)
        for index, one in enumerate(conditions):
            colour = SERIES[index % len(SERIES)]
            if index:
                x = places - 0.4 + width * (index - 0.5)
                deviations.bar(x, one["bins"]["mean"], 0.9 * width, color=colour, alpha=0.75)
                deviations.vlines(x, 0, one["bins"]["p95"], color=colour, linewidth=1.2)
            costs.plot(one["milliseconds"]["p50"], one["accept_length"], "o", color=colour, label=one["label"])
        deviations.set(title=f"deviation from {report['reference']} [bins]", xlabel="bar: mean; line: to the p95")
        deviations.set_xticks(places, report["dimensions"])
        costs.set(title="tokens per forward", xlabel="milliseconds of an action, p50")
        costs.set_xlim(0, MARGIN * max(one["milliseconds"]["p50"] for one in conditions))
        costs.set_ylim(0, MARGIN * max(one["accept_length"] for one in conditions))
        figure.legend(*costs.get_legend_handles_labels(), loc="outside lower left", ncols=3)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(file, facecolor=SURFACE, dpi=150)
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from error
