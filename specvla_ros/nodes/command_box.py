"""Where the executor leaves commands and the simulation loop picks them up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from specvla_ros.msg import EndEffectorCommand


def nanoseconds(command: EndEffectorCommand) -> int:
    """The stamp of the image that the command answers."""
    stamp = command.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec


class CommandBox:
    """Holds the newest command."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._command: EndEffectorCommand | None = None

    def put(self, command: EndEffectorCommand) -> None:
        """Leave a command and wake whoever waits for it."""
        with self._condition:
            self._command = command
            self._condition.notify_all()

    def latest(self) -> EndEffectorCommand | None:
        """The newest command, if any came."""
        with self._condition:
            return self._command

    def wait_for(
        self, stamps: Collection[int], timeout: float, running: Callable[[], bool]
    ) -> EndEffectorCommand | None:
        """A command that answers an image of one of these stamps, or None after `timeout` seconds.

        Looks every 0.1 s whether `running` still holds, so that a stop is not held up.
        """
        deadline = time.monotonic() + timeout
        with self._condition:
            while (left := deadline - time.monotonic()) > 0 and running():
                if self._command is not None and nanoseconds(self._command) in stamps:
                    return self._command
                self._condition.wait(min(left, 0.1))
        return None
