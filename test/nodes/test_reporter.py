"""What the node says about itself, from two threads at once."""

from __future__ import annotations

import threading

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.logging import get_logger

from specvla_ros.nodes.health import ERROR, OK, Health
from specvla_ros.nodes.reporter import Reporter


class SlowPublisher:
    """Takes its time for what is well."""

    def __init__(self) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        self.levels: list[bytes] = []

    def publish(self, status: DiagnosticStatus) -> None:
        if status.level == OK:
            self.began.set()
            assert self.go.wait(5.0)
        self.levels.append(status.level)


def test_the_status_that_stays_on_the_topic_is_the_newest_whatever_thread_was_slow() -> None:
    statuses = SlowPublisher()
    reporter = Reporter("specvla", Health("loading"), get_logger("specvla"), statuses, lambda: None)
    well = threading.Thread(target=reporter.say, args=(OK, "publishing commands", "publishing commands"))
    stopped = threading.Thread(target=reporter.say, args=(ERROR, "emergency stop", "emergency stop"))
    well.start()
    assert statuses.began.wait(5.0)
    stopped.start()
    stopped.join(0.1)
    statuses.go.set()
    well.join()
    stopped.join()
    assert statuses.levels == [OK, ERROR]
