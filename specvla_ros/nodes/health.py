"""What a policy node has seen and done lately, as one diagnostics message."""

from __future__ import annotations

import time
from collections import Counter, deque

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

WINDOW = 200
"""Actions and images that the rates and percentiles look back on."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Health:
    """Counts, rates and latencies, and the one sentence that matters now."""

    def __init__(self, sentence: str) -> None:
        self.counts: Counter[str] = Counter()
        self._level, self._sentence = WARN, sentence
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._accept_lengths: deque[float] = deque(maxlen=WINDOW)

    def say(self, level: bytes, sentence: str) -> None:
        """What the node does now, or why it does nothing."""
        self._level, self._sentence = level, sentence

    def image_arrived(self) -> None:
        """For the input rate and age."""
        self._arrivals.append(time.monotonic())

    def action_published(self, latency_ms: float, accept_length: float) -> None:
        """For the latency percentiles and the mean accept length."""
        self.counts["commands"] += 1
        self._latencies.append(latency_ms)
        self._accept_lengths.append(accept_length)

    def message(self, name: str, stamp: Time, extra: dict[str, str]) -> DiagnosticArray:
        """The diagnostics of this moment."""
        values = {**self._rates(), **extra, **{key: str(count) for key, count in sorted(self.counts.items())}}
        status = DiagnosticStatus(level=self._level, name=name, message=self._sentence, hardware_id=name)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp
        return array

    def _rates(self) -> dict[str, str]:
        rates = {}
        arrivals = list(self._arrivals)
        if arrivals:
            rates["seconds since last image"] = f"{time.monotonic() - arrivals[-1]:.2f}"
        if len(arrivals) > 1 and arrivals[-1] > arrivals[0]:
            rates["image rate [Hz]"] = f"{(len(arrivals) - 1) / (arrivals[-1] - arrivals[0]):.1f}"
        if self._latencies:
            p50, p95 = np.percentile(list(self._latencies), [50, 95])
            rates["latency p50 [ms]"], rates["latency p95 [ms]"] = f"{p50:.1f}", f"{p95:.1f}"
            rates["accept length [tokens per forward]"] = f"{np.mean(list(self._accept_lengths)):.2f}"
        return rates
