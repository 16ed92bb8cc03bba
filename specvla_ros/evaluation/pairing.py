"""Two evaluations on the same episodes, one beside the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from specvla_ros.evaluation.intervals import mcnemar

Outcomes = Mapping[tuple[int, int], bool]
"""Whether an episode was solved, by task and initial state."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """An evaluation and another that it is compared with.

    Attributes:
        episodes: that both played.
        solved: by the other.
        lost: solved by the other only; `won` by this one only.
    """

    episodes: int
    solved: int
    lost: int
    won: int

    @classmethod
    def of(cls, outcomes: Outcomes, others: Outcomes, starts: Collection[tuple[int, int]]) -> Pairing:
        """On some starts that both were tried on."""
        return cls(
            episodes=len(starts),
            solved=sum(others[start] for start in starts),
            lost=sum(others[start] and not outcomes[start] for start in starts),
            won=sum(outcomes[start] and not others[start] for start in starts),
        )

    @property
    def p(self) -> float:
        """How often chance alone makes as much of a difference: the exact McNemar test, two-sided."""
        return mcnemar(self.lost, self.won)
