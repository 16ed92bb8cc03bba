"""Wall time of an action by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch


def _mark() -> torch.cuda.Event:
    """A moment in the GPU's work."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class Stopwatch:
    """Adds up milliseconds by phase.

    On a GPU its own clock takes them, so that nothing waits to be timed; there a phase begins where the last one ended.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = time.perf_counter()
        self._milliseconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event]] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the body and add it to `name`."""
        if self._device.type == "cuda":
            if not self._events:
                self._events.append(("", _mark()))
            yield
            self._events.append((name, _mark()))
        else:
            started = time.perf_counter()
            yield
            self._milliseconds[name] += 1e3 * (time.perf_counter() - started)

    def milliseconds(self) -> dict[str, float]:
        """Every phase, and `total` since the start."""
        if self._events:
            self._events[-1][1].synchronize()
        total = 1e3 * (time.perf_counter() - self._started)
        for (_, began), (name, ended) in pairwise(self._events):
            self._milliseconds[name] += began.elapsed_time(ended)
        self._events = []
        return {**self._milliseconds, "total": total}
