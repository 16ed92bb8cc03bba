"""The report's plots of figures that were pooled before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specvla_ros.report.numbers import ABSENT
from specvla_ros.report.palette import BLUE, INK, MUTED, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.2
"""Inches; the page's column."""
LEGEND_LETTERS = 100
"""What fits beside each other, with room for the samples of the lines."""
JOINED = 3
"""Points that make a curve; fewer stand alone."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of one series.

    Attributes:
        low, high: bounds of a band around it, where there is one.
        beside: what plain greedy decoding reached at each point, where it is another height at each.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    beside: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over one x axis.

    Attributes:
        reference: height of a dashed line, and what it is.
        percent: y is a rate of 0 to 1 and is shown in percent.
    """

    title: str
    x_label: str
    curves: Sequence[Curve]
    reference: tuple[float, str] | None = None
    percent: bool = False


def draw_panels(panels: Sequence[Panel]) -> Figure:
    """Side by side, a legend below."""
    from matplotlib.figure import Figure

    labels = dict.fromkeys(curve.label for panel in panels for curve in panel.curves)
    columns = max(1, min(4, LEGEND_LETTERS // max(map(len, labels), default=1)))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(WIDTH, 2.9 + 0.2 * rows), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_panel(axes, panel)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=columns)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import PercentFormatter

    for index, curve in enumerate(panel.curves):
        # The marker too, for those who see no colours; of sixteen curves no two have both in common.
        colour, marker = SERIES[index % len(SERIES)], "os^D"[(index + index // len(SERIES)) % 4]
        _draw_curve(axes, curve, colour, marker)
    if panel.reference:
        height, label = panel.reference
        axes.axhline(height, color=MUTED, linestyle="--", linewidth=1.2, label=label)
    if panel.percent:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(title=panel.title, xlabel=panel.x_label)


def _draw_curve(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    """A line in its band; two points alone, between which nobody measured anything, are not joined."""
    joined = len(curve.x) >= JOINED
    if curve.low and joined:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    elif curve.low:
        axes.vlines(curve.x, curve.low, curve.high, color=colour, linewidth=1.2)
    line = "-" if joined else "none"
    axes.plot(
        curve.x, curve.y, color=colour, marker=marker, markersize=4, linestyle=line, linewidth=1.6, label=curve.label
    )
    if curve.beside:
        axes.plot(curve.x, curve.beside, color=colour, linestyle=":", marker=".", linewidth=1.2)


def draw_shares(rows: Sequence[tuple[str, Sequence[float | None]]], columns: Sequence[str], x_label: str) -> Figure:
    """A grid of shares, 0 to 1, a label before each row: the darker a cell, the larger its share; None is no share."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 0.75 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for y, (_, shares) in enumerate(rows):
        for x, share in enumerate(shares):
            # Never so dark that the number could not be read, on a light screen or a dark one.
            if share is not None:
                axes.barh(y, 0.96, left=x - 0.48, height=0.9, color=BLUE, alpha=0.03 + 0.45 * share, linewidth=0)
            axes.text(
                x, y, ABSENT if share is None else f"{share:.0%}", ha="center", va="center", fontsize=8, color=INK
            )
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), xlabel=x_label)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
