"""What an evaluation's summary has no room for: each action counts once, however long its episode was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from specvla_ros.evaluation.rollout import EpisodeResult


@dataclass(frozen=True, slots=True)
class Details:
    """Of some episodes of one evaluation.

    Attributes:
        rounds: (6) share of rounds that accepted 0, 1, ... 5 drafts.
        positions: (7) share of actions whose token there was an accepted draft.
        deviations: (7) mean distance from the target's argmax, in bins.
        milliseconds: by phase, the median over the episodes of an episode's median and 95th percentile.
        held, at_rest: share of steps with an old command, and with none that still held.
    """

    rounds: tuple[float, ...]
    positions: tuple[float, ...]
    deviations: tuple[float, ...]
    milliseconds: dict[str, tuple[float, float]]
    held: float
    at_rest: float

    @classmethod
    def of(cls, episodes: Sequence[EpisodeResult]) -> Details:
        """Pool episodes, at least one."""
        steps = sum(one.steps for one in episodes)
        actions = [one.actions for one in episodes]
        rounds = np.sum([one.accepted for one in episodes], axis=0)
        positions = np.sum([one.position_accepts for one in episodes], axis=0)
        times: dict[str, tuple[float, float]] = {}
        for phase in episodes[0].milliseconds:
            median, p95 = np.median([one.milliseconds[phase] for one in episodes], axis=0)
            times[phase] = (float(median), float(p95))
        return cls(
            rounds=tuple((rounds / max(1, rounds.sum())).tolist()),
            positions=tuple((positions / sum(actions)).tolist()),
            deviations=tuple(np.average([one.deviations for one in episodes], axis=0, weights=actions).tolist()),
            milliseconds=times,
            held=sum(one.steps_held for one in episodes) / steps,
            at_rest=sum(one.steps_without_command for one in episodes) / steps,
        )
