"""The links between the decoder's action and the arm. Pure functions, none of which knows of ROS.

A motion is (6,) float64: x, y, z in units of delta_position and roll, pitch, yaw in units of delta_rotation. A value
within its limits leaves every link bit for bit as it came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

AXES = 6
POSITION_AXES = 3
AT_REST: Values = np.zeros(AXES)
AT_REST.flags.writeable = False
GRIPPER_MIDDLE = 0.5
"""From here on a gripper value means open."""


def is_finite(values: Values) -> bool:
    """Whether an action may go on at all: no NaN and no infinity in it."""
    return bool(np.isfinite(values).all())


def limit_change(motion: Values, previous: Values, limits: Values) -> Values:
    """The motion nearest to `motion` that differs from the previous one by at most `limits` (6,) on each axis."""
    return np.clip(motion, previous - limits, previous + limits)


def limit_gripper(value: float) -> float:
    """The opening nearest to `value` that fingers have, 0 closed .. 1 open; some data's tokens go beyond both."""
    return min(max(value, 0.0), 1.0)


def limit_speed(motion: Values, limits: Values) -> Values:
    """The motion nearest to `motion` whose magnitude on each axis is at most `limits` (6,)."""
    return np.clip(motion, -limits, limits)


@dataclass(frozen=True, slots=True)
class Box:
    """Where the hand may be: opposite corners, (3,) [m], in the frame of its pose."""

    low: Values
    high: Values


def keep_in_box(motion: Values, position: Values, box: Box, metres: float) -> Values:
    """The motion without what would lead out of the box, or further out of it; the way back in stays open.

    Args:
        position: (3,) [m] of the hand.
        metres: one unit of delta_position.
    """
    low, high = np.minimum(box.low - position, 0.0), np.maximum(box.high - position, 0.0)
    kept = motion.copy()
    step = motion[:POSITION_AXES] * metres
    # Only an axis that crosses is touched: a division would not give the others back bit for bit.
    crossing = (step < low) | (step > high)
    kept[:POSITION_AXES][crossing] = np.clip(step, low, high)[crossing] / metres
    return kept


@dataclass(frozen=True, slots=True)
class Gripper:
    """What the gripper was told last, 0 closed .. 1 open, and how many decisions in a row disagree with it."""

    value: float
    disagreeing: int = 0


def debounce(gripper: Gripper | None, value: float, needed: int) -> Gripper:
    """A decision for the other side (open, closed) counts once `needed` in a row say so; 1 believes each at once."""
    if gripper is None or (value >= GRIPPER_MIDDLE) == (gripper.value >= GRIPPER_MIDDLE):
        return Gripper(value)
    if gripper.disagreeing + 1 >= needed:
        return Gripper(value)
    return Gripper(gripper.value, gripper.disagreeing + 1)
