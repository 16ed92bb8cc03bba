"""Where the executor leaves commands and the simulation loop picks them up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes.messages import nanoseconds


class CommandBox:
    """Holds the newest command, and the newest that is not a stop."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._command: EndEffectorCommand | None = None
        self._answer: EndEffectorCommand | None = None

    def put(self, command: EndEffectorCommand) -> None:
        """Leave a command and wake whoever waits for it."""
        with self._condition:
            self._command = command
            if not is_stop(command):
                self._answer = command
            self._condition.notify_all()

    def latest(self) -> EndEffectorCommand | None:
        """The newest command, if any came."""
        with self._condition:
            return self._command

    def wait_for(
        self, stamps: Collection[int], timeout: float, running: Callable[[], bool]
    ) -> EndEffectorCommand | None:
        """The command decoded from an image of one of these stamps, or None after `timeout` seconds.

        A repetition is as good as the command itself, which may have been lost; a stop answers nothing.
        Looks every 0.1 s whether `running` still holds, so that a stop is not held up.
        """
        deadline = time.monotonic() + timeout
        with self._condition:
            while (left := deadline - time.monotonic()) > 0 and running():
                if self._answer is not None and nanoseconds(self._answer.header.stamp) in stamps:
                    return self._answer
                self._condition.wait(min(left, 0.1))
        return None


def is_stop(command: EndEffectorCommand) -> bool:
    """Whether it brings the arm to rest; a replayed command has no tokens either, but is not held."""
    return bool(command.held and not any(command.tokens))
