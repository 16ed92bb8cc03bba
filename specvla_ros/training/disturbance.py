"""Noise that pushes the arm off an expert's way, so that demonstrations show the way back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHANCE = 0.06
"""Of a new push at a step without one."""
LENGTHS = (3, 7)
"""Shortest and longest push, in steps."""
SIZE = 0.4
"""Standard deviation of a push in each direction, as a part of the controller's largest motion."""
FIRST_SIZE = 0.8
"""The same for the push an episode begins with: starts differ more than the scene's own randomisation makes them."""


class Disturbance:
    """Pushes of constant direction for a few steps, by DART's rule: added to what the arm does, never to the label."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._begin(FIRST_SIZE)

    def apply(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(7,) action with this step's push on its motion; rotation and gripper stay."""
        disturbed = values.copy()
        if self._left > 0:
            disturbed[:3] = np.clip(values[:3] + self._push, -1.0, 1.0)
            self._left -= 1
        elif self._random.random() < CHANCE:
            self._begin(SIZE)
        return disturbed

    def _begin(self, size: float) -> None:
        self._left = int(self._random.integers(*LENGTHS, endpoint=True))
        self._push = self._random.normal(0.0, size, 3)
