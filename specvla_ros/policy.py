"""What the ROS nodes need of a decoder, and nothing more: an image and an instruction in, an action out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import ConfigurationError

ACTION_DIMENSIONS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
ACTION_LENGTH = len(ACTION_DIMENSIONS)
MAX_THRESHOLD = 255
PLAIN = "none"
"""The draft of plain greedy decoding, which has no draft tokens to accept: its threshold is always 0."""

Thresholds = tuple[int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class DecodeStats:
    """What one action cost and how it was decoded.

    Attributes:
        accepted: draft tokens accepted in each verification round.
        forwards: target forwards, the prefill included (1 + rounds).
        deviations: per token, distance in bins from the target's argmax for the same prefix (7 values).
        milliseconds: wall time by phase: prepare, vision, prefill, draft, verify, total.
        graph_misses: passes on a GPU for which no CUDA graph was recorded, so that they took longer.
    """

    accepted: tuple[int, ...]
    forwards: int
    deviations: tuple[int, ...]
    milliseconds: dict[str, float] = field(default_factory=dict)
    graph_misses: int = 0

    @property
    def rounds(self) -> int:
        """Verification rounds."""
        return len(self.accepted)

    @property
    def accept_length(self) -> float:
        """Tokens per target forward, the prefill included: how the Spec-VLA paper counts (7 / forwards)."""
        return ACTION_LENGTH / self.forwards


@dataclass(frozen=True, slots=True)
class Action:
    """One end-effector action.

    Attributes:
        values: (7,) float64: dx, dy, dz, droll, dpitch, dyaw in the checkpoint's units; gripper, 0 closed .. 1 open.
        tokens: the seven token ids.
        stats: what decoding cost.
    """

    values: NDArray[np.float64]
    tokens: tuple[int, ...]
    stats: DecodeStats


class Policy(Protocol):
    """The interface between the decoder and the nodes."""

    thresholds: Thresholds
    """Acceptance distance in bins by dimension, obeyed from the next `act` on. All zero: greedy decoding."""

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        """Decode one action from an (H, W, 3) uint8 RGB image.

        Raises:
            ImageError: the image is not (H, W, 3) uint8.
            ConfigurationError: the instruction is empty.
        """

    def reset(self) -> None:
        """Forget the previous actions: a new episode begins."""


@runtime_checkable
class LooksAhead(Protocol):
    """What a policy may offer beside `Policy`.

    Attributes:
        looks_ahead: whether `look` is of any use.
    """

    looks_ahead: bool

    def look(self, image: NDArray[np.uint8]) -> None:
        """Start preparing an image that may be passed to `act` next.

        It is recognised by identity, so pass the same array. Thread-safe.
        """


def expand_thresholds(threshold: int | Sequence[int]) -> Thresholds:
    """One threshold for the six motion dimensions with the gripper exact, or one for each of the seven dimensions.

    Raises:
        ConfigurationError: not an integer of 0..255, or not seven of them.
    """
    values = list(threshold) if isinstance(threshold, Sequence) else [threshold] * (ACTION_LENGTH - 1) + [0]
    if len(values) != ACTION_LENGTH:
        raise ConfigurationError(
            f"thresholds has {len(values)} values; expected one for each of {', '.join(ACTION_DIMENSIONS)}"
        )
    for name, value in zip(ACTION_DIMENSIONS, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value <= MAX_THRESHOLD:
            raise ConfigurationError(
                f"threshold {value!r} for {name} is out of range; expected a whole number of bins from 0 "
                f"(greedy decoding) to {MAX_THRESHOLD}"
            )
    x, y, z, roll, pitch, yaw, gripper = (int(value) for value in values)
    return (x, y, z, roll, pitch, yaw, gripper)
