"""The case study as a picture: one panel a round, its draft tree over the action's dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specvla_ros.policy import ACTION_DIMENSIONS, ACTION_LENGTH
from specvla_ros.report.case_study import CaseRound, CaseStudy
from specvla_ros.report.palette import BLUE, MUTED, ORANGE, RULE, SURFACE, TEAL
from specvla_ros.vla.config import ACTION_BINS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES_A_ROW = 0.18
MARGIN = 1.0
"""Rows left free above and below a tree."""


def draw_case_study(study: CaseStudy) -> Figure:
    """Trees from left to right; what was accepted is filled, what the target answered instead stands in a square."""
    from matplotlib.figure import Figure

    heights = [INCHES_A_ROW * (max(_rows(one)) - _answer_row(one) + 2 * MARGIN) for one in study.rounds]
    figure = Figure(figsize=(8.2, sum(heights) + 0.35 * len(heights) + 0.4), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    decided = 1
    for number, (axes, one) in enumerate(zip(panels, study.rounds, strict=True), start=1):
        _draw_round(axes, one, decided - 1)
        accepted = len(one.path) - 1
        axes.set_title(
            f"round {number}: {len(one.drafted) - 1} drafted, {accepted} accepted, 1 from the target", loc="left"
        )
        decided += len(one.committed)
    panels[-1].set_xlim(-0.45, ACTION_LENGTH - 0.4)
    names = [f"{name}\nr = {limit}" for name, limit in zip(ACTION_DIMENSIONS, study.thresholds, strict=True)]
    panels[-1].set_xticks(range(ACTION_LENGTH), names)
    return figure


def _draw_round(axes: Axes, one: CaseRound, root: int) -> None:
    """A tree whose root is dimension `root`."""
    depths = _depths(one)
    rows = _rows(one)
    path = set(one.path)
    for node in range(1, len(one.drafted)):
        parent = one.parents[node]
        x, y = root + depths[node], rows[node]
        on = node in path
        axes.plot(
            [root + depths[parent], x],
            [rows[parent], y],
            color=BLUE if on else RULE,
            linewidth=2 if on else 0.8,
            zorder=1,
        )
        # Only where the parent was accepted does the target's answer speak about this action.
        if parent in path:
            _label(axes, x, y, _text(one, node), BLUE if on else ORANGE, filled=on)
        else:
            axes.plot(x, y, "o", color=MUTED, markersize=2.5, zorder=2)
    _label(axes, root, rows[0], str(one.drafted[0]), MUTED, filled=True)
    last = one.path[-1]
    x, y = root + depths[last] + 1, _answer_row(one)
    axes.plot([x - 1, x], [rows[last], y], color=TEAL, linewidth=2, linestyle=":", zorder=1)
    _label(axes, x, y, str(one.answers[last]), TEAL, filled=True)
    axes.set(ylim=(max(rows) + MARGIN, y - MARGIN), yticks=[])
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)


def _text(one: CaseRound, node: int) -> str:
    """A node's bin and how far it is from the target's answer."""
    if not 0 <= one.drafted[node] < ACTION_BINS:
        return "no action"
    distance = one.distance(node)
    return f"{one.drafted[node]} ({distance:+d})" if distance else f"{one.drafted[node]} (=)"


def _label(axes: Axes, x: float, y: float, text: str, colour: str, *, filled: bool) -> None:
    box = {"boxstyle": "round,pad=0.25", "facecolor": colour if filled else SURFACE, "edgecolor": colour}
    axes.text(x, y, text, color=SURFACE if filled else colour, fontsize=7, ha="center", va="center", bbox=box, zorder=3)


def _depths(one: CaseRound) -> list[int]:
    depths = [0]
    for parent in one.parents[1:]:
        depths.append(depths[parent] + 1)
    return depths


def _answer_row(one: CaseRound) -> int:
    """Of the target's answer after the path: beside it, or above where the refused drafts begin."""
    return -1 if one.path[-1] in one.parents[1:] else 0


def _rows(one: CaseRound) -> list[float]:
    """A height for each node, 0 the topmost: leaves one below the other, a parent beside its first child."""
    children: dict[int, list[int]] = {}
    for node in range(1, len(one.drafted)):
        children.setdefault(one.parents[node], []).append(node)
    rows = [0.0] * len(one.drafted)
    leaves = 0
    # The accepted path goes straight along the top.
    stack = [0]
    while stack:
        node = stack.pop()
        rows[node] = leaves
        below = sorted(children.get(node, []), key=lambda child: (child not in one.path, child))
        if not below:
            leaves += 1
        stack += reversed(below)
    return rows
