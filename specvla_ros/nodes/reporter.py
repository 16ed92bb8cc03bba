"""What the node says about itself: the log, the diagnostics' sentence and the status topic, from one place."""

from __future__ import annotations

import threading
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.publisher import Publisher

from specvla_ros.nodes.health import ERROR, WARN, Health
from specvla_ros.nodes.throttle import Throttle

WARNING_PERIOD = 5.0
"""Seconds between two log lines about the same kind of trouble."""


class Reporter:
    """Whatever is wrong brings the arm to rest before a word is said; any thread may call it.

    Args:
        statuses: publishes DiagnosticStatus, one for each change of kind.
        rest: brings the arm to rest.
    """

    def __init__(
        self,
        name: str,
        health: Health,
        logger: RcutilsLogger,
        statuses: Publisher[DiagnosticStatus],
        rest: Callable[[], None],
    ) -> None:
        self._name = name
        self._health = health
        self._logger = logger
        self._statuses = statuses
        self._rest = rest
        self._throttle = Throttle(WARNING_PERIOD)
        self._publishing = threading.Lock()

    def say(self, level: bytes, kind: str, sentence: str) -> None:
        """What the node does now, or why it does nothing."""
        self._health.say(level, sentence, kind)
        self.publish_status()

    def warn(self, kind: str, sentence: str, level: bytes = WARN) -> None:
        """The same, as something that the user should look at; in the log too, now and then."""
        self.say(level, kind, sentence)
        if self._throttle.is_due(kind):
            self._logger.warning(sentence)

    def refuse(self, kind: str, sentence: str, level: bytes = WARN) -> None:
        """An input that gives no command."""
        self._rest()
        self._health.count(kind)
        self.warn(kind, sentence, level)

    def trouble(self, kind: str, sentence: str) -> None:
        """Something is broken."""
        self._rest()
        self.say(ERROR, kind, sentence)
        if self._throttle.is_due(kind):
            self._logger.error(sentence)

    def publish_status(self) -> None:
        """When it is another one than before; of two threads the newer word comes last, for it stays on the topic."""
        with self._publishing:
            status = self._health.changed_status(self._name)
            if status is not None:
                self._statuses.publish(status)
