"""Which episode a worker plays next."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple


class Job(NamedTuple):
    """One episode of a task."""

    task: int
    episode: int


class Schedule:
    """Hands out jobs such that a worker stays with its task: another scene costs five seconds.

    A worker whose task is used up joins the one with the most left for each worker on it, so all end together.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._left: dict[int, deque[Job]] = {}
        self._workers: Counter[int] = Counter()
        for job in jobs:
            self._left.setdefault(job.task, deque()).append(job)

    def next(self, last: Job | None) -> Job | None:
        """A job for a worker whose last one was `last`; None when all are handed out."""
        if last is not None:
            if self._left[last.task]:
                return self._left[last.task].popleft()
            self._workers[last.task] -= 1
        task = max(self._left, key=lambda task: len(self._left[task]) / (1 + self._workers[task]), default=None)
        if task is None or not self._left[task]:
            return None
        self._workers[task] += 1
        return self._left[task].popleft()
