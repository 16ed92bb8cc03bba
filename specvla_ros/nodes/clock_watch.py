"""A ROS clock that goes back or stands still: what was decoded before says nothing about now."""

from __future__ import annotations

import time

STANDSTILL = 10.0
"""Seconds of wall time; the slowest simulation (a control step in 5 s) moves its clock more often."""


class ClockWatch:
    """Asked by one thread, again and again, with the ROS clock's time in nanoseconds."""

    def __init__(self) -> None:
        self._latest = 0
        self._heard = time.monotonic()

    def went_back(self, now: int) -> bool:
        """Whether the clock shows less than when it was last asked for."""
        back = now < self._latest
        if now != self._latest:
            self._latest, self._heard = now, time.monotonic()
        return back

    def something_came(self) -> None:
        """A message of whoever drives the clock: a simulation that waits, for a policy say, is not gone."""
        self._heard = time.monotonic()

    @property
    def stands_still(self) -> bool:
        """Whether the clock has shown the same time for too long and nothing came: whatever drove it is gone."""
        return time.monotonic() - self._heard > STANDSTILL
