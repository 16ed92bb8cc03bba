"""Action tokens and what their values mean on the robot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from specvla_ros.errors import CheckpointError
from specvla_ros.policy import ACTION_DIMENSIONS, ACTION_LENGTH
from specvla_ros.vla.config import ACTION_BINS


class ActionTokenizer:
    """OpenVLA's 256 bins on [-1, 1]: the last ids of the vocabulary, counted backwards (a higher id, a lower value).

    Args:
        vocabulary_size: real ids of the vocabulary, 32000 for Llama-2.
    """

    def __init__(self, vocabulary_size: int) -> None:
        self._vocabulary_size = vocabulary_size
        self._edges = np.linspace(-1.0, 1.0, ACTION_BINS)
        self._centres = (self._edges[:-1] + self._edges[1:]) / 2.0

    def decode(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Token ids to bin centres. There are 255 bins for 256 ids: the lowest two ids both stand for the top bin."""
        digits = self._vocabulary_size - np.asarray(tokens)
        return self._centres[np.clip(digits - 1, 0, len(self._centres) - 1)]

    def encode(self, values: ArrayLike) -> list[int]:
        """Normalised values, clipped to [-1, 1], to token ids."""
        digits = np.digitize(np.clip(values, -1.0, 1.0), self._edges)
        return [int(token) for token in self._vocabulary_size - digits]


@dataclass(frozen=True, slots=True)
class NormStats:
    """How one data set's actions were normalised: q01 to -1, q99 to 1, where the mask says so.

    Attributes:
        low, high: (7,) the 1st and 99th percentile, in the data set's units.
        mask: (7,) False where a value is kept as it is (the gripper).
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mask: NDArray[np.bool_]

    @classmethod
    def from_dict(cls, action: Mapping[str, Any], where: str) -> NormStats:
        """Read the `action` part of a norm_stats entry; a mask that is absent is all True.

        Raises:
            CheckpointError: q01, q99 or mask is missing, not seven long, not finite, or upside down.
        """
        low = _seven_numbers(action, "q01", where)
        high = _seven_numbers(action, "q99", where)
        if (low > high).any():
            dimension = ACTION_DIMENSIONS[int(np.argmax(low > high))]
            raise CheckpointError(f"{where}: q01 is above q99 for {dimension}; expected q01 <= q99")
        mask = action.get("mask", [True] * ACTION_LENGTH)
        is_list = isinstance(mask, list) and len(mask) == ACTION_LENGTH
        if not is_list or not all(isinstance(value, bool) for value in mask):
            raise CheckpointError(f"{where}: mask is {mask!r}; expected {ACTION_LENGTH} of true or false")
        return cls(low, high, np.array(mask))

    def unnormalise(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(7,) values in [-1, 1] to the data set's units."""
        return np.where(self.mask, 0.5 * (values + 1.0) * (self.high - self.low) + self.low, values)

    def normalise(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(7,) values in the data set's units to [-1, 1], clipped; a dimension that never moved becomes -1."""
        span = np.where(self.high > self.low, self.high - self.low, 1.0)
        return np.where(self.mask, np.clip(2.0 * (values - self.low) / span - 1.0, -1.0, 1.0), values)


def select_norm_stats(norm_stats: Mapping[str, Any], key: str | None, directory: Path) -> tuple[str, NormStats]:
    """The entry `key`, or `key`_no_noops, or the only one; with the name it was found under.

    Raises:
        CheckpointError: no such key, or several and none was asked for.
    """
    names = ", ".join(sorted(norm_stats)) or "none"
    if key is None:
        if len(norm_stats) != 1:
            raise CheckpointError(
                f"{directory}: choose the norm_stats to un-normalise with by unnorm_key; the keys are {names}"
            )
        key = next(iter(norm_stats))
    found = next((name for name in (key, f"{key}_no_noops") if name in norm_stats), None)
    if found is None:
        raise CheckpointError(f"{directory}: no norm_stats for unnorm_key {key!r}; the keys are {names}")
    entry = norm_stats[found]
    if not isinstance(entry, Mapping) or not isinstance(entry.get("action"), Mapping):
        raise CheckpointError(f"{directory}: norm_stats of {found} has no 'action' with q01, q99 and mask")
    return found, NormStats.from_dict(entry["action"], f"{directory}: norm_stats of {found}")


def _seven_numbers(action: Mapping[str, Any], name: str, where: str) -> NDArray[np.float64]:
    try:
        numbers = np.array(action[name], dtype=np.float64)
    except KeyError:
        raise CheckpointError(f"{where}: {name} is missing; expected {ACTION_LENGTH} numbers") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {name} is {action[name]!r}; expected {ACTION_LENGTH} numbers") from error
    if numbers.shape != (ACTION_LENGTH,) or not np.isfinite(numbers).all():
        raise CheckpointError(f"{where}: {name} is {action[name]!r}; expected {ACTION_LENGTH} finite numbers")
    return numbers
