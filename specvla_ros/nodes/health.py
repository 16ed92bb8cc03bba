"""What a policy node has seen and done lately, as one diagnostics message."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from statistics import harmonic_mean

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

WINDOW = 200
"""Actions, images and poses that the rates and percentiles look back on."""
SILENCE = 2.0
"""Seconds without an image, or a pose, after which it counts as lost."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Health:
    """Counts, rates and latencies, and the one sentence that matters now; any thread may add to it."""

    def __init__(self, sentence: str) -> None:
        self._lock = threading.Lock()
        self._level, self._sentence, self._kind = WARN, sentence, sentence
        self._told: tuple[bytes, str] | None = None
        self._counts: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=WINDOW)
        self._ages: deque[float] = deque(maxlen=WINDOW)
        self._pose_arrivals: deque[float] = deque(maxlen=WINDOW)
        self._pose_ages: deque[float] = deque(maxlen=WINDOW)
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._accept_lengths: deque[float] = deque(maxlen=WINDOW)
        self._rounds: deque[int] = deque(maxlen=WINDOW)

    def say(self, level: bytes, sentence: str, kind: str) -> None:
        """What the node does now, or why it does nothing; sentences of one kind differ in their figures only."""
        with self._lock:
            self._level, self._sentence, self._kind = level, sentence, kind

    def count(self, kind: str, number: int = 1) -> None:
        """So many more of something."""
        with self._lock:
            self._counts[kind] += number

    def image_arrived(self) -> None:
        """For the input rate."""
        with self._lock:
            self._arrivals.append(time.monotonic())

    def image_aged(self, seconds: float) -> None:
        """For the input age, by the image's stamp."""
        with self._lock:
            self._ages.append(seconds)

    def pose_arrived(self, age: float) -> None:
        """For the rate and the age [s] of ee_pose, by its stamp."""
        with self._lock:
            self._pose_arrivals.append(time.monotonic())
            self._pose_ages.append(age)

    @property
    def silence(self) -> float:
        """Seconds since the last image; 0 where none has come yet."""
        with self._lock:
            return time.monotonic() - self._arrivals[-1] if self._arrivals else 0.0

    def action_published(self, latency_ms: float, accept_length: float, rounds: int) -> None:
        """For the latency percentiles, the mean accept length and the verification rounds."""
        with self._lock:
            self._level, self._sentence, self._kind = OK, "publishing commands", "publishing commands"
            self._counts["commands"] += 1
            self._latencies.append(latency_ms)
            self._accept_lengths.append(accept_length)
            self._rounds.append(rounds)

    def changed_status(self, name: str) -> DiagnosticStatus | None:
        """Level and sentence, if they are of another kind than at the last call."""
        with self._lock:
            if self._told == (self._level, self._kind):
                return None
            self._told = (self._level, self._kind)
            return DiagnosticStatus(level=self._level, name=name, message=self._sentence, hardware_id=name)

    def message(self, name: str, stamp: Time, extra: dict[str, str]) -> DiagnosticArray:
        """The diagnostics of this moment."""
        with self._lock:
            level, sentence = self._level, self._sentence
            counts = {kind: str(count) for kind, count in sorted(self._counts.items())}
            values = {**self._rates(), **extra, **counts}
        status = DiagnosticStatus(level=level, name=name, message=sentence, hardware_id=name)
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = stamp
        return array

    def _rates(self) -> dict[str, str]:
        rates = {}
        for name, arrivals, ages in (
            ("image", self._arrivals, self._ages),
            ("ee_pose", self._pose_arrivals, self._pose_ages),
        ):
            if arrivals and time.monotonic() - arrivals[-1] > SILENCE:
                rates[f"{name} rate [Hz]"] = "0.0"
                continue
            if len(arrivals) > 1 and arrivals[-1] > arrivals[0]:
                rate = (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
                rates[f"{name} rate [Hz]"] = f"{rate:.1f}"
            if ages:
                p50, p95 = np.percentile(ages, [50, 95])
                rates[f"{name} age p50 [ms]"], rates[f"{name} age p95 [ms]"] = f"{1e3 * p50:.1f}", f"{1e3 * p95:.1f}"
        if self._latencies:
            p50, p95 = np.percentile(self._latencies, [50, 95])
            rates["latency p50 [ms]"], rates["latency p95 [ms]"] = f"{p50:.1f}", f"{p95:.1f}"
            rates["accept length [tokens per forward]"] = f"{harmonic_mean(self._accept_lengths):.2f}"
            rates["verification rounds"] = f"{np.mean(self._rounds):.2f}"
        return rates
