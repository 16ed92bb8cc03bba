"""What a policy node has seen and done lately, as one diagnostics message."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

WINDOW = 200
"""Actions and images that the rates and percentiles look back on."""
SILENCE = 2.0
"""Seconds without an image after which a node that worked is no longer well."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Health:
    """Counts, rates and latencies, and the one sentence that matters now; any thread may add to it."""

    def __init__(self, sentence: str) -> None:
        self._lock = threading.Lock()
        self._level, self._sentence = WARN, sentence
        self._counts: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._accept_lengths: deque[float] = deque(maxlen=WINDOW)

    def say(self, level: bytes, sentence: str) -> None:
        """What the node does now, or why it does nothing."""
        with self._lock:
            self._level, self._sentence = level, sentence

    def count(self, kind: str) -> None:
        """One more of something."""
        with self._lock:
            self._counts[kind] += 1

    def image_arrived(self) -> None:
        """For the input rate and age."""
        with self._lock:
            self._arrivals.append(time.monotonic())

    def action_published(self, latency_ms: float, accept_length: float) -> None:
        """For the latency percentiles and the mean accept length."""
        with self._lock:
            self._level, self._sentence = OK, "publishing commands"
            self._counts["commands"] += 1
            self._latencies.append(latency_ms)
            self._accept_lengths.append(accept_length)

    def message(self, name: str, stamp: Time, extra: dict[str, str]) -> DiagnosticArray:
        """The diagnostics of this moment."""
        with self._lock:
            level, sentence = self._level, self._sentence
            silence = time.monotonic() - self._arrivals[-1] if self._arrivals else 0.0
            if level == OK and silence > SILENCE:
                level, sentence = WARN, f"no image for {silence:.0f} s"
            counts = {kind: str(count) for kind, count in sorted(self._counts.items())}
            values = {**self._rates(), **extra, **counts}
        status = DiagnosticStatus(level=level, name=name, message=sentence, hardware_id=name)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp
        return array

    def _rates(self) -> dict[str, str]:
        rates = {}
        if len(self._arrivals) > 1 and self._arrivals[-1] > self._arrivals[0]:
            rate = (len(self._arrivals) - 1) / (self._arrivals[-1] - self._arrivals[0])
            rates["image rate [Hz]"] = f"{rate:.1f}"
        if self._latencies:
            p50, p95 = np.percentile(self._latencies, [50, 95])
            rates["latency p50 [ms]"], rates["latency p95 [ms]"] = f"{p50:.1f}", f"{p95:.1f}"
            rates["accept length [tokens per forward]"] = f"{np.mean(self._accept_lengths):.2f}"
        return rates
