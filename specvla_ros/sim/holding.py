"""What the arm is told while no new command has come: the same for the bridge's real time and the simulated one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from specvla_ros.sim.libero import CONTROL_RATE

STEP_NANOSECONDS = int(1e9 / CONTROL_RATE)
"""Simulated time of a control step."""
HOLD_TIME = 0.2
"""Simulated seconds that a command holds unless told otherwise."""


def is_old(age: int) -> bool:
    """Whether an earlier frame's command is still in force; `age` is nanoseconds since its image.

    At 20 Hz no command of real time is newer than the frame of the step before.
    """
    return age > STEP_NANOSECONDS


def is_stale(age: int, hold_time: float) -> bool:
    """Whether a command holds no longer: `hold_time` seconds and the step in which they end have gone by."""
    return age > hold_time * 1e9 + STEP_NANOSECONDS


def without_motion(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(7,) the same with the hand at rest and the gripper as it was."""
    return np.append(np.zeros(6), values[6])
