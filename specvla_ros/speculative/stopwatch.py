"""Wall time of an action by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up milliseconds by phase. On a GPU its own clock takes them, so that nothing waits to be timed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = time.perf_counter()
        self._milliseconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body and add it to `name`."""
        if self._device.type == "cuda":
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            yield
            ended.record()
            self._events.append((name, began, ended))
        else:
            started = time.perf_counter()
            yield
            self._milliseconds[name] += 1e3 * (time.perf_counter() - started)

    def milliseconds(self) -> dict[str, float]:
        """Every phase, and `total` since the start."""
        if self._events:
            self._events[-1][2].synchronize()
        total = 1e3 * (time.perf_counter() - self._started)
        while self._events:
            name, began, ended = self._events.pop()
            self._milliseconds[name] += began.elapsed_time(ended)
        return {**self._milliseconds, "total": total}
