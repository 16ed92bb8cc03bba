"""How every node process starts and ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn, TypeVar

import rclpy
import rclpy.logging
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from specvla_ros.errors import SpecVLAError

N = TypeVar("N", bound=Node)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the end of a service, and a terminal or a connection that closes."""
LOOK = 0.5
"""Seconds between two looks at whether a signal has come, where nothing else happens."""


class StopSignal:
    """One of `STOP_SIGNALS`: it interrupts what the main thread does, and is remembered.

    An interrupt that falls into an object's `__del__` (rclpy's futures have one) is printed and ignored by Python.
    """

    came = False

    @classmethod
    def handle(cls, number: int, frame: FrameType | None) -> NoReturn:
        """The signal handler."""
        cls.came = True
        raise KeyboardInterrupt


def spin(node: Node) -> None:
    """Like `rclpy.spin`; ends as well after a signal whose interrupt was ignored."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while rclpy.ok() and not StopSignal.came:
            executor.spin_once(timeout_sec=LOOK)
    finally:
        executor.remove_node(node)


def run_node(
    name: str,
    build: Callable[[], N],
    work: Callable[[N], object],
    args: Sequence[str] | None,
    speaks_last: bool = False,
) -> None:
    """Build a node and let `work` run until it returns or the process is told to stop.

    An error in an argument, a parameter or a file ends the process with one sentence and exit code 1; a signal to stop
    ends it with 0.

    Args:
        speaks_last: the node's `close` still has something to publish. rclpy's own handlers would have taken its
            context away by then; so the signals only interrupt `work`, which is `spin` or looks at `StopSignal`.
    """
    arguments = list(args) if args is not None else None
    handlers = SignalHandlerOptions.NO if speaks_last else None
    try:
        others = remove_ros_args(arguments)[1:]
        rclpy.init(args=arguments, signal_handler_options=handlers)
    except RuntimeError as error:  # what rclpy raises for ROS arguments has nothing else in common
        sys.exit(f"{name}: the ROS arguments, or a file that they name, cannot be read: {error}")
    if others:  # such as a parameter file, whose limits would not count
        sys.exit(f"{name}: {' '.join(others)}: a node takes ROS arguments only, and those come after --ros-args")
    for number in STOP_SIGNALS if speaks_last else (signal.SIGHUP,):  # rclpy leaves that one alone
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, StopSignal.handle)
    node = None
    failed = stuck = False
    try:
        node = build()
        work(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (SpecVLAError, InvalidParameterValueException, ValueError) as error:
        rclpy.logging.get_logger(name).fatal(str(error))
        failed = True
    except RCLError:
        # Whoever publishes while SIGTERM takes the context away ends up here.
        if rclpy.ok():
            raise
    finally:
        # A terminal and ros2 launch both pass Ctrl-C on; the second must not interrupt the end.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if node is not None:
            close = getattr(node, "close", None)
            if close:
                try:
                    stuck = close() is False
                except SpecVLAError as error:  # a file that it could not finish
                    rclpy.logging.get_logger(name).fatal(str(error))
                    failed = True
            node.destroy_node()
        rclpy.try_shutdown()
    if stuck:
        # A thread inside a library, which loads a large model for example, would abort the interpreter's own end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(failed))
    if failed:
        sys.exit(1)
