"""Wall time of an action by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up milliseconds by phase; waits for the device, so that each phase pays for its own work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = time.perf_counter()
        self._milliseconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body and add it to `name`."""
        started = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._milliseconds[name] += 1e3 * (time.perf_counter() - started)

    def milliseconds(self) -> dict[str, float]:
        """Every phase, and `total` since the start."""
        return {**self._milliseconds, "total": 1e3 * (time.perf_counter() - self._started)}
