"""What an episode took: success, steps, latency, the decoder's counts."""

from __future__ import annotations

import hashlib
import time
from statistics import harmonic_mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specvla_ros.msg import DecodeStats


class EpisodeLog:
    """Matches images, commands and decode statistics by the image's stamp."""

    def __init__(self) -> None:
        self._stamped: dict[int, float] = {}
        self._latency_ms: dict[int, float] = {}
        self._stats: dict[int, DecodeStats] = {}
        self._started = 0.0
        self._seconds = 0.0
        self.counts = {"images sent again": 0, "steps held": 0, "steps without command": 0, "overruns": 0}

    def start(self) -> None:
        """The first step is about to be made; what came before was waiting for the policy."""
        self._started = time.monotonic()

    def finish(self) -> None:
        """The last step was made."""
        self._seconds = time.monotonic() - self._started

    def image_stamped(self, stamp: int) -> None:
        """An image got its stamp (again)."""
        self._stamped[stamp] = time.monotonic()

    def command_arrived(self, stamp: int) -> None:
        """A command for the image of this stamp arrived."""
        if stamp in self._stamped:
            self._latency_ms.setdefault(stamp, 1e3 * (time.monotonic() - self._stamped[stamp]))

    def stats_arrived(self, stamp: int, stats: DecodeStats) -> None:
        """The decoder's statistics for the image of this stamp."""
        self._stats[stamp] = stats

    def report(self, steps: int, success: bool, state: NDArray[np.float64]) -> dict[str, Any]:
        """The figures of the episode; the first action, which warms up, is left out of the latencies."""
        stamps = sorted(self._latency_ms)[1:]
        latency = [self._latency_ms[stamp] for stamp in stamps]
        matched = [stamp for stamp in stamps if stamp in self._stats]
        ros = [self._latency_ms[stamp] - self._stats[stamp].decode_ms for stamp in matched]
        decode = [self._stats[stamp].decode_ms for stamp in matched]
        lengths = [stats.accept_length for stats in list(self._stats.values())]  # more may arrive meanwhile
        return {
            "success": success,
            "steps": steps,
            "seconds": round(self._seconds, 3),
            "steps_per_second": round(steps / self._seconds, 2) if self._seconds else None,
            "latency_ms": percentiles(latency),
            "decode_ms": percentiles(decode),
            "ros_ms": percentiles(ros),
            "accept_length": round(harmonic_mean(lengths), 3) if lengths else None,
            "counts": dict(self.counts),
            "state_sha256": hashlib.sha256(state.tobytes()).hexdigest(),
        }


def percentiles(values: list[float]) -> dict[str, float] | None:
    """p50, p95 and p99, or None of nothing."""
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "p99": round(float(p99), 2)}
