"""What a threshold does in lockstep: success, accept length, speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from specvla_ros.evaluation.runs import PLAIN_LABEL, Run
from specvla_ros.policy import PLAIN
from specvla_ros.report.plots import Curve, Panel
from specvla_ros.report.realtime import success_curve
from specvla_ros.report.speed import SpeedUp

THRESHOLD = "threshold [bins]"
GROWTH = 1.05
"""Of the tokens per forward, from which a threshold is said to lengthen them."""


def sweep_groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Evaluations in lockstep by their draft, where it was tried at several thresholds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if not run.realtime and run.draft != PLAIN and run.threshold is not None:
            groups.setdefault(run.draft, []).append(run)
    return {draft: group for draft, group in groups.items() if len(group) > 1}


def sweep_panels(
    groups: Mapping[str, Sequence[Run]], plain: Run | None, speed_ups: Mapping[Run, SpeedUp]
) -> list[Panel]:
    """Three panels with a curve for each draft.

    Args:
        plain: greedy decoding without a draft, for comparison.
        speed_ups: against plain greedy decoding, alternating in one run; without them the speed is what the
            evaluations' own actions took.
    """
    success = [
        success_curve(draft, [(run.thresholds[0], run) for run in group], plain) for draft, group in groups.items()
    ]
    panels = [
        Panel("success", THRESHOLD, success, _level(plain, lambda run: run.success), percent=True),
        _panel("tokens per forward", groups, lambda run: run.total.tokens_per_forward, plain),
    ]
    measured = {draft: [run for run in group if run in speed_ups] for draft, group in groups.items()}
    if any(measured.values()):
        curves = [_speed_curve(draft, group, speed_ups) for draft, group in measured.items()]
        return [*panels, Panel("speed-up", THRESHOLD, curves, (1.0, PLAIN_LABEL))]
    return [*panels, _panel("ms an action, median", groups, lambda run: run.total.median_ms, plain)]


def hardly_relaxed(runs: Sequence[Run]) -> list[str]:
    """A sentence on each draft whose tokens per forward hardly grow with the threshold."""
    sentences = []
    for draft, group in sweep_groups(runs).items():
        strict = [run.total.tokens_per_forward for run in group if run.threshold == 0]
        relaxed = [run.total.tokens_per_forward for run in group if run.threshold != 0]
        if strict and relaxed and max(relaxed) < GROWTH * strict[0]:
            sentences.append(
                f"Relaxing the threshold hardly lengthens what {draft} has accepted: {strict[0]:.2f} tokens per "
                f"forward at 0, and at most {max(relaxed):.2f} at a higher one."
            )
    return sentences


def _speed_curve(draft: str, group: Sequence[Run], speed_ups: Mapping[Run, SpeedUp]) -> Curve:
    ratios = [speed_ups[run] for run in group]
    low, high = [one.interval[0] for one in ratios], [one.interval[1] for one in ratios]
    return Curve(draft, [run.thresholds[0] for run in group], [one.ratio for one in ratios], low, high)


def _panel(title: str, groups: Mapping[str, Sequence[Run]], value: Callable[[Run], float], plain: Run | None) -> Panel:
    curves = [
        Curve(draft, [run.thresholds[0] for run in group], [value(run) for run in group])
        for draft, group in groups.items()
    ]
    return Panel(title, THRESHOLD, curves, _level(plain, value))


def _level(plain: Run | None, value: Callable[[Run], float]) -> tuple[float, str] | None:
    return (value(plain), PLAIN_LABEL) if plain else None
