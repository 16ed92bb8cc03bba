"""Success when the scene does not wait: against a given latency, and against the threshold."""

from __future__ import annotations

from collections.abc import Sequence

from specvla_ros.evaluation.latency import parse_latency
from specvla_ros.evaluation.tables import success_cells
from specvla_ros.report.plots import Curve, Panel
from specvla_ros.report.runs import CONDITIONS, Run
from specvla_ros.report.table import Table

GIVEN = "fixed:"
"""How the condition `latency` begins where it was given, and not the decoder's own nor a model of one."""


def latency_text(run: Run) -> str:
    """In words; a delay model is called emulated, since no machine was timed."""
    latency = parse_latency(run.latency)
    if latency.own:
        return "the decoder's own"
    if run.latency.startswith(GIVEN):
        return f"{latency.floor:g} ms"
    return f"emulated, {latency.floor:g} ms + {latency.each_round:g} ms a round"


def realtime_table(name: str, runs: Sequence[Run]) -> Table:
    """A row for each evaluation in real time."""
    headings = (*CONDITIONS, "latency", "success %", "solved", "95 % interval", "steps", "held %", "at rest %")
    rows = []
    for run in runs:
        total, details = run.total, run.details
        rows.append(
            [
                run.draft,
                run.threshold_text,
                latency_text(run),
                f"{100 * run.success:.1f}",
                *success_cells(total),
                f"{total.steps:.1f}",
                f"{100 * details.held:.1f}",
                f"{100 * details.at_rest:.1f}",
            ]
        )
    return Table(f"{name}_realtime", headings, rows, text_columns=3)


def latency_panel(runs: Sequence[Run]) -> Panel:
    """Success against a given latency, a curve for each draft and threshold; lockstep is a latency of nothing."""
    curves = []
    for label in dict.fromkeys(run.label for run in runs if run.latency.startswith(GIVEN)):
        alike = [run for run in runs if run.label == label and (not run.realtime or run.latency.startswith(GIVEN))]
        # Lockstep first: where a latency of 0 was given too, that is the point.
        points = {parse_latency(run.latency).floor: run for run in sorted(alike, key=lambda run: run.realtime)}
        curves.append(success_curve(label, list(points.items())))
    return Panel("success by latency", "latency of a command [ms]", curves, percent=True)


def by_latency(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Evaluations whose latency is the decoder's own or emulated, by draft and latency, of several thresholds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.realtime and not run.latency.startswith(GIVEN) and run.threshold is not None:
            groups.setdefault(f"{run.draft}, {latency_text(run)}", []).append(run)
    return {label: group for label, group in groups.items() if len(group) > 1}


def threshold_panel(groups: dict[str, list[Run]]) -> Panel:
    """Success against the threshold, a curve for each group of `by_latency`."""
    curves = [success_curve(label, [(run.thresholds[0], run) for run in group]) for label, group in groups.items()]
    return Panel("success by threshold in real time", "threshold [bins]", curves, percent=True)


def best_threshold(group: Sequence[Run]) -> str:
    """A sentence: which threshold solved most, how sure that is, and which others it cannot be told from."""
    best = max(group, key=lambda run: run.success)
    low, high = best.total.interval
    others = [run.threshold_text for run in group if run is not best and run.total.interval[1] >= low]
    sentence = (
        f"Best threshold: {best.threshold_text}, with {100 * best.success:.1f} % of {best.total.episodes} episodes "
        f"solved (95 % interval {100 * low:.1f} to {100 * high:.1f} %)."
    )
    if others:
        sentence += f" Its interval overlaps with that of {', '.join(others)}: these episodes do not tell them apart."
    return sentence


def success_curve(label: str, points: Sequence[tuple[float, Run]]) -> Curve:
    """Success rates with their intervals over x."""
    ordered = sorted(points, key=lambda point: point[0])
    low, high = zip(*(run.total.interval for _, run in ordered), strict=True)
    return Curve(label, [x for x, _ in ordered], [run.success for _, run in ordered], low, high)
