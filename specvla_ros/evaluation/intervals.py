"""How sure a success rate is, and the difference between two."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion (JASA 22, 1927); (0, 1) when nothing was tried.

    Unlike the textbook's p +- 2 s it does not shrink to a point at 0 of n or n of n.
    """
    if trials == 0:
        return 0.0, 1.0
    rate, z2 = successes / trials, Z_95**2
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    # At 0 of n and n of n an end is the rate itself; rounding must not put the rate outside.
    return min(rate, max(0.0, centre - half)), max(rate, min(1.0, centre + half))


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p of the exact McNemar test (Psychometrika 12, 1947): were two conditions alike, each pair in which
    only one of them succeeded would fall to either side with probability 1/2.

    Args:
        lost: pairs in which only the one succeeded; `won` in which only the other did.
    """
    pairs = lost + won
    tail = sum(math.comb(pairs, count) for count in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**pairs)


def holm(several: Sequence[float]) -> list[float]:
    """The p of several tests, each corrected for all of them (Holm, Scandinavian Journal of Statistics 6, 1979).

    Were there no difference anywhere, any of these would be below 5 % in at most 5 % of the cases.
    """
    corrected, largest = [0.0] * len(several), 0.0
    for rank, index in enumerate(sorted(range(len(several)), key=several.__getitem__)):
        largest = max(largest, min(1.0, (len(several) - rank) * several[index]))
        corrected[index] = largest
    return corrected
