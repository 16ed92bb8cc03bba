"""A stand-in for the model: tries the wiring of nodes, topics and arm without weights."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import ConfigurationError, DecodeError
from specvla_ros.policy import ACTION_LENGTH, Action, DecodeStats, Thresholds

FIRST_ID = 31744


class FakePolicy:
    """Answers at once with a small motion that depends on the image's brightness and the instruction.

    Args:
        thresholds: carried along; each token's reported deviation is its threshold.
        delay: seconds an action takes.
        fault: "" for none, "raise" to fail at every action, "nan" to answer with NaN.
    """

    def __init__(self, thresholds: Thresholds = (0, 0, 0, 0, 0, 0, 0), delay: float = 0.0, fault: str = "") -> None:
        self.thresholds = thresholds
        self.resets = 0
        self._delay = delay
        self._fault = fault

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        """See `specvla_ros.policy.Policy`."""
        if not instruction.strip():
            raise ConfigurationError("the instruction is empty; say what the robot should do")
        started = time.perf_counter()
        time.sleep(self._delay)
        if self._fault == "raise":
            raise DecodeError("the fake policy was told to fail")
        brightness = float(image[::16, ::16].mean()) / 255.0
        values = np.full(ACTION_LENGTH, 0.2 * brightness - 0.1)
        values[-1] = len(instruction) % 2
        if self._fault == "nan":
            values[2] = np.nan
        milliseconds = {"total": 1e3 * (time.perf_counter() - started)}
        tokens = tuple(FIRST_ID + int(brightness * 200) + offset for offset in range(ACTION_LENGTH))
        return Action(values, tokens, DecodeStats((5,), 2, tuple(self.thresholds), milliseconds))

    def reset(self) -> None:
        """Count it."""
        self.resets += 1
