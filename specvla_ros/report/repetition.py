"""Tokens that repeat from action to action, which any draft gets right."""

from __future__ import annotations

from collections.abc import Sequence

from specvla_ros.evaluation.runs import Run
from specvla_ros.policy import ACTION_DIMENSIONS

HOLD = "hold"
ALMOST_ALL = 0.95
"""Share of actions."""


def unvarying_dimensions(runs: Sequence[Run]) -> list[str]:
    """Dimensions whose token almost always is that of the action before.

    Strict `hold` drafts the tokens of the action before and accepts only the target's own, so that what it accepts has
    not changed; what it did not come to draft counts as changed. Without such an evaluation nothing is known.
    """
    strict = next((run for run in runs if run.draft == HOLD and not any(run.thresholds)), None)
    if strict is None:
        return []
    shares = zip(ACTION_DIMENSIONS, strict.details.positions, strict=True)
    return [name for name, share in shares if share >= ALMOST_ALL]
