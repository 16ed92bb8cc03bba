"""Log lines that may come thirty times a second."""

from __future__ import annotations

import threading
import time


class Throttle:
    """Lets each kind of line through once in `period` seconds; one kind does not silence another."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def is_due(self, kind: str) -> bool:
        """Whether a line of this kind may be logged now; if so, the next one has to wait."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(kind, -self._period) < self._period:
                return False
            self._last[kind] = now
            return True
