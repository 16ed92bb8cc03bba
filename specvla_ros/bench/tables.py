"""A benchmark's rows as two tables: what an action costs, and where its time goes."""

from __future__ import annotations

from collections.abc import Sequence

import rich.table

from specvla_ros.bench.entrants import MEASURED
from specvla_ros.bench.results import PHASES, TOTAL, Figures, Milliseconds, Row
from specvla_ros.report.numbers import ABSENT
from specvla_ros.report.table import Table

COST = (
    "row",
    "kind",
    "ms median",
    "p95",
    "p99",
    "actions/s",
    "forwards",
    "tokens per forward",
    "times greedy",
    "95 % interval",
    "floor ms",
    "over floor",
    "arithmetic ms",
    "as greedy",
    "bins off",
)
WORDS = 2
ON_SCREEN = ("row", "ms median", "p95", "p99", "tokens per forward", "times greedy", "95 % interval", "over floor")


def cost_table(rows: Sequence[Row]) -> Table:
    """A line for each row; empty where nothing was measured."""
    cells = [[row.name, row.kind, *(_cost(row.figures) if row.figures else _empty(COST))] for row in rows]
    return Table("cost", COST, cells, text_columns=WORDS)


def phase_table(rows: Sequence[Row]) -> Table:
    """Milliseconds by phase, each cell the median, the 95th and the 99th percentile."""
    names = (*PHASES, TOTAL)
    cells = []
    for row in rows:
        if row.figures:
            times = [_three(row.figures.milliseconds[name]) for name in names]
            cells.append([row.name, row.kind, *times])
    return Table("phases", ("row", "kind", *names), cells, text_columns=WORDS)


def cost_on_screen(rows: Sequence[Row], title: str) -> rich.table.Table:
    """For the terminal, which is narrow: the figures that decide."""
    table = cost_table(rows)
    chosen = [table.headings.index(heading) for heading in ON_SCREEN]
    return _drawn(ON_SCREEN, rows, [[cells[index] for index in chosen] for cells in table.rows], title)


def phases_on_screen(rows: Sequence[Row]) -> rich.table.Table:
    """For the terminal: the medians."""
    shown = [row for row in rows if row.figures]
    names = (*PHASES, TOTAL)
    cells = [
        [row.name, *(f"{row.figures.milliseconds[name].median:.1f}" for name in names if row.figures)] for row in shown
    ]
    return _drawn(("row", *names), shown, cells, "milliseconds by phase, median")


def _drawn(
    headings: Sequence[str], rows: Sequence[Row], cells: Sequence[Sequence[str]], title: str
) -> rich.table.Table:
    drawn = rich.table.Table(title=title, title_justify="left")
    for heading in headings:
        drawn.add_column(heading, justify="left" if heading == "row" else "right", overflow="fold")
    for row, line in zip(rows, cells, strict=True):
        drawn.add_row(*line, style="" if row.kind == MEASURED else "dim")
    return drawn


def notes(rows: Sequence[Row]) -> list[str]:
    """What absent rows need."""
    return [f"{row.name}: {row.note}" for row in rows if row.note]


def _cost(figures: Figures) -> list[str]:
    total, (low, high) = figures.milliseconds[TOTAL], figures.interval
    return [
        f"{total.median:.1f}",
        f"{total.p95:.1f}",
        f"{total.p99:.1f}",
        f"{figures.actions_per_second:.1f}",
        f"{figures.forwards:.2f}",
        f"{figures.tokens_per_forward:.2f}",
        f"{figures.ratio:.2f}",
        f"{low:.2f} - {high:.2f}",
        f"{figures.floor_ms:.2f}",
        f"{figures.over_floor:.1f}",
        f"{figures.arithmetic_ms:.2f}",
        ABSENT if figures.same_actions is None else f"{figures.same_actions:.0%}",
        ABSENT if figures.bins_off is None else f"{figures.bins_off:.2f}",
    ]


def _empty(headings: Sequence[str]) -> list[str]:
    return [ABSENT] * (len(headings) - WORDS)


def _three(milliseconds: Milliseconds) -> str:
    return f"{milliseconds.median:.1f} / {milliseconds.p95:.1f} / {milliseconds.p99:.1f}"
