"""Where each row's time goes, as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from specvla_ros.bench.results import PHASES, TOTAL, Row
from specvla_ros.report.palette import BLUE, INK, MUTED, ORANGE, RULE, TEAL, VIOLET
from specvla_ros.report.plots import WIDTH
from specvla_ros.report.svg import inline_svg, standalone_svg, style

COLOURS = dict(zip(PHASES, (MUTED, TEAL, BLUE, ORANGE, VIOLET, RULE), strict=True))


def phases_svg(rows: Sequence[Row]) -> str:
    """One bar a row, its phases' mean milliseconds end to end, the floor as a stroke.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    shown = [(row.name, row.figures) for row in rows if row.figures]
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(shown)), layout="constrained")
        axes = figure.subplots()
        heights = range(len(shown))
        left = [0.0] * len(shown)
        for phase in PHASES:
            widths = [figures.milliseconds[phase].mean for _, figures in shown]
            axes.barh(heights, widths, left=left, height=0.7, color=COLOURS[phase], label=phase)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        floors = [figures.floor_ms for _, figures in shown]
        axes.scatter(floors, heights, marker="|", s=120, color=INK, label="floor", zorder=3)
        for height, (_, figures) in zip(heights, shown, strict=True):
            text = f" {figures.milliseconds[TOTAL].mean:.1f}"
            axes.text(figures.milliseconds[TOTAL].mean, height, text, va="center", fontsize=8, color=INK)
        axes.set_yticks(heights, [name for name, _ in shown])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.08)
        axes.set(xlabel="milliseconds of an action, mean", title="Where the time goes")
        figure.legend(loc="outside lower left", ncols=len(PHASES) + 1)
        return standalone_svg(inline_svg(figure, "benchmark phases"))
