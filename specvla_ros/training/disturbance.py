"""What makes an arm leave an expert's way, so that demonstrations show the way back."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from specvla_ros.policy import Policy
from specvla_ros.sim.libero import Frame

CHANCE = 0.06
"""Of a new push at a step without one."""
LENGTHS = (3, 7)
"""Shortest and longest push, in steps."""
SIZE = 0.4
"""Standard deviation of a push in each direction, as a part of the controller's largest motion."""
FIRST_SIZE = 0.8
"""The same for the push an episode begins with: starts differ more than the scene's own randomisation makes them."""
SLIP_CHANCE, SLIP_STEPS, SLIP_LENGTH = 0.4, (5, 60), 10
"""Of an episode with a slip of the fingers, the steps in which one begins, and for how many it lasts."""
POLICY_STRETCH, EXPERT_STRETCH = (20, 80), (10, 30)
"""Steps for which each of the two drives before the other takes over."""
LAST_TURN = 140
"""From this step on the expert drives alone: only what it brings to an end is kept."""


class Interference(Protocol):
    """Comes between what the expert says, which is recorded, and what the arm does."""

    def apply(self, frame: Frame, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(7,) what the arm does in the scene of `frame`, when the expert would do `values`."""


class Obedience:
    """No interference: the arm does what the expert says."""

    def apply(self, frame: Frame, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same values."""
        return values


class Disturbance:
    """Pushes of constant direction for a few steps, and at times fingers that close or open when they should not.

    DART's rule (arXiv 1703.09327): noise goes into what the arm does, never into the label.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._slip = range(0)
        if self._random.random() < SLIP_CHANCE:
            first = int(self._random.integers(*SLIP_STEPS))
            self._slip = range(first, first + SLIP_LENGTH)
        self._step = 0
        self._begin(FIRST_SIZE)

    def apply(self, frame: Frame, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add this step's push to the motion, and turn the gripper's command round while the fingers slip."""
        disturbed = values.copy()
        if self._left > 0:
            disturbed[:3] = np.clip(values[:3] + self._push, -1.0, 1.0)
            self._left -= 1
        elif self._random.random() < CHANCE:
            self._begin(SIZE)
        if self._step in self._slip:
            disturbed[6] = 1.0 - values[6]
        self._step += 1
        return disturbed

    def _begin(self, size: float) -> None:
        self._left = int(self._random.integers(*LENGTHS, endpoint=True))
        self._push = self._random.normal(0.0, size, 3)


class PolicyDriver:
    """A trained policy drives for stretches and the expert in between, saying all along what it would do.

    The data then shows the way back from the policy's own mistakes (DAgger, arXiv 1011.0686).
    """

    def __init__(self, policy: Policy, instruction: str, seed: int) -> None:
        self._policy = policy
        self._instruction = instruction
        self._random = np.random.default_rng(seed)
        self._policy_drives = False
        self._left = 0
        policy.reset()

    def apply(self, frame: Frame, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The policy's answer to the frame, or the expert's values, by whose turn it is."""
        if self._left == 0:
            self._policy_drives = not self._policy_drives
            stretch = POLICY_STRETCH if self._policy_drives else EXPERT_STRETCH
            self._left = int(self._random.integers(*stretch, endpoint=True))
        self._left -= 1
        if not self._policy_drives or frame.step >= LAST_TURN:
            return values
        assert frame.image is not None
        return self._policy.act(frame.image, self._instruction).values
