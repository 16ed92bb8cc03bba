"""One thread that works on the newest item; older ones that still wait are dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class NewestWorker(Generic[T]):
    """Runs `setup` once and then `work` on the newest submitted item, all in one thread.

    Whoever submits never waits. `work` and `setup` answer for their own errors.

    Attributes:
        busy: whether an item is being worked on.
    """

    def __init__(self, setup: Callable[[], None], work: Callable[[T], None]) -> None:
        self._setup = setup
        self._work = work
        self._condition = threading.Condition()
        self._item: T | None = None
        self._stopped = False
        self.busy = False
        self._set_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait_until_set_up(self, timeout: float) -> bool:
        """Whether `setup` has returned, after at most `timeout` seconds."""
        return self._set_up.wait(timeout)

    def submit(self, item: T) -> bool:
        """Leave an item to be worked on next; True when it took the place of one that still waited."""
        with self._condition:
            replaced = self._item is not None
            self._item = item
            self._condition.notify()
        return replaced

    def stop(self, timeout: float = 5.0) -> bool:
        """Drop what waits and end the thread once it has finished what it works on; False when that takes longer."""
        with self._condition:
            self._stopped = True
            self._item = None
            self._condition.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._setup()
        self._set_up.set()
        while (item := self._take()) is not None:
            self.busy = True
            self._work(item)
            self.busy = False

    def _take(self) -> T | None:
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self._item is not None)
            item, self._item = self._item, None
            return None if self._stopped else item
