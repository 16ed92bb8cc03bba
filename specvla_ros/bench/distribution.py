"""How many drafted tokens each round of an action accepts, as a distribution over whole actions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from specvla_ros.errors import ConfigurationError
from specvla_ros.policy import ACTION_LENGTH, PLAIN

Rounds = tuple[int, ...]
"""Draft tokens accepted in each verification of one action; each verification adds one token of the target's own, and
the first of the seven comes with the prefill."""
Distribution = Mapping[Rounds, float]
LEFT = ACTION_LENGTH - 1
"""Tokens that the verifications have to bring."""


def geometric(tokens_per_forward: float) -> dict[Rounds, float]:
    """Every drafted token is accepted with the same chance, which is the one that gives this mean.

    That is the usual model of speculative decoding (Leviathan et al., arXiv 2211.17192). The mean is 7 over the mean
    number of target forwards, the prefill included, as Spec-VLA counts.

    Raises:
        ConfigurationError: no chance gives this mean: it lies between 1 and 3.5.
    """
    most = ACTION_LENGTH / 2
    if not 1.0 <= tokens_per_forward <= most:
        raise ConfigurationError(f"{tokens_per_forward} tokens per forward cannot be; expected 1 to {most}")
    low, high = 0.0, 1.0
    for _ in range(60):
        chance = (low + high) / 2
        if tokens_per_forward_of(_actions(LEFT, chance)) < tokens_per_forward:
            low = chance
        else:
            high = chance
    return _actions(LEFT, (low + high) / 2)


def tokens_per_forward_of(distribution: Distribution) -> float:
    """The mean that `geometric` takes."""
    return ACTION_LENGTH / sum(weight * (1 + len(rounds)) for rounds, weight in distribution.items())


def measured(path: Path) -> dict[str, dict[Rounds, float]]:
    """The distributions of the speculative rows that `specvla bench` measured into this file, by the row's name.

    Raises:
        ConfigurationError: the file is not the benchmark's, or holds no such row.
    """
    try:
        rows = json.loads(path.read_text())["rows"]
        found = {
            row["name"]: _shares(Counter(tuple(rounds) for rounds in row["accepted"]))
            for row in rows
            if row["kind"] == "measured" and row["draft"] != PLAIN
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"imposed lengths {path} cannot be read ({error}); expected paper, or what specvla bench wrote"
        ) from error
    if not found:
        raise ConfigurationError(f"{path} holds no measured row with a draft; name one when you measure")
    return found


def spread(distribution: Distribution, count: int) -> list[Rounds]:
    """`count` actions at even steps through the distribution, in an order that is the same every time.

    Independent draws would miss the mean by more than the differences that a benchmark shows.
    """
    kinds = sorted(distribution, key=lambda rounds: (len(rounds), rounds))
    up_to = np.cumsum([distribution[kind] for kind in kinds])
    places = np.searchsorted(up_to, up_to[-1] * (np.arange(count) + 0.5) / count)
    return [kinds[place] for place in np.random.default_rng(0).permutation(places)]


def _actions(left: int, chance: float) -> dict[Rounds, float]:
    """Every way to bring `left` tokens and its probability; at most `left` - 1 drafts are of use in a round."""
    if left == 0:
        return {(): 1.0}
    found: dict[Rounds, float] = {}
    for accepted in range(left):
        weight = chance**accepted * (1.0 if accepted == left - 1 else 1.0 - chance)
        for rest, share in _actions(left - accepted - 1, chance).items():
            rounds = (accepted, *rest)
            found[rounds] = weight * share
    return found


def _shares(counts: Counter[Rounds]) -> dict[Rounds, float]:
    for rounds in counts:
        if sum(rounds) + len(rounds) != LEFT:
            raise ValueError(f"rounds {rounds} do not bring {LEFT} tokens")
    return {rounds: number / counts.total() for rounds, number in counts.items()}
