"""A ROS clock that goes back or stands still: what was decoded before says nothing about now."""

from __future__ import annotations

import time
from collections import deque

LONGEST_STEP = 5.0
"""Seconds of wall time between two moves of the slowest simulation's clock, a twentieth of a second at factor 0.01."""
MARGIN = 2.0
"""A clock that moves in steps is given the time of so many of them."""


class ClockWatch:
    """Asked by one thread, again and again, with the ROS clock's time in nanoseconds."""

    def __init__(self) -> None:
        self._latest = 0

    def went_back(self, now: int) -> bool:
        """Whether the clock shows less than when it was last asked for."""
        back, self._latest = now < self._latest, now
        return back


class Standstill:
    """Whether simulated time has ceased to move, by a clock of the machine that goes on: nobody may drive /clock now.

    A slow simulation is not one that stands still: its clock moves seldom, but it moves. What it usually takes between
    two moves is the shorter of the last two waits, so that one pause does not make the next standstill look usual.
    """

    def __init__(self) -> None:
        self._shown = 0
        self._moved = time.monotonic()
        self._waits: deque[float] = deque(maxlen=2)

    def look(self, now: int) -> None:
        """The clock shows `now`."""
        if now == self._shown:
            return
        moved = time.monotonic()
        if self._shown:  # the wait for the first time that is shown says nothing about the pace
            self._waits.append(min(moved - self._moved, LONGEST_STEP))
        self._shown, self._moved = now, moved

    def outlasts(self, seconds: float, since: float) -> bool:
        """Whether the clock has not moved for `seconds`, or MARGIN of its usual steps, of wall time.

        Args:
            since: monotonic time before which nobody counts.
        """
        usual = min(self._waits) if len(self._waits) == 2 else 0.0
        return time.monotonic() - max(self._moved, since) > max(seconds, MARGIN * usual)
