"""Feeds a recording to a policy node of its own over DDS, and keeps what it answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from specvla_ros.bags.recording import Frame
from specvla_ros.errors import BagError
from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes import qos
from specvla_ros.nodes.messages import nanoseconds
from specvla_ros.share import share_folder

NAMESPACE = f"/specvla_replay_{os.getpid()}"
"""Away from a robot that listens on the same network: a replayed command must move nothing."""
REMAPPINGS = (f"__ns:={NAMESPACE}", "/diagnostics:=diagnostics")
STATUS = "specvla/status"
ALL = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
"""The player looks for answers between two images only, and the node repeats each command."""
DISCOVERY, LOADING, ANSWER = 60.0, 600.0, 600.0
"""Seconds at most until the node is found, which is there before its policy, until that is loaded, and until an image
is answered that is waited for."""
ARRIVAL, LAST = 10.0, 10.0
"""Seconds at most until an instruction has arrived, and until the last image is answered, which may be lost."""
RESEND = 2.0
"""Seconds after which an image without an answer is sent again, since images go out best effort; then twice as long."""


def prepare_middleware() -> None:
    """For this process and its children, before the first node: large images arrive, and stay on this machine."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(share_folder() / "config" / "fastdds.xml"))


class Player(Node):
    """The other end of a policy node's topics, in `NAMESPACE`.

    Args:
        is_compressed: publish on image/compressed.
        require_alive: raises an error when the policy node's process has ended.
    """

    def __init__(self, is_compressed: bool, require_alive: Callable[[], None]) -> None:
        super().__init__("player", namespace=NAMESPACE)
        self._require_alive = require_alive
        self._commands: dict[int, EndEffectorCommand] = {}
        self._status = DiagnosticStatus(message="nothing")
        self._stamp = 0
        self._episode = 0
        self._images = (
            self.create_publisher(CompressedImage, "image/compressed", qos.IMAGE)
            if is_compressed
            else self.create_publisher(Image, "image", qos.IMAGE)
        )
        self._instructions = self.create_publisher(String, "instruction", qos.LATCHED)
        self.create_subscription(EndEffectorCommand, "ee_command", self._on_command, ALL)
        self.create_subscription(DiagnosticStatus, STATUS, self._on_status, qos.LATCHED)

    def wait_for_policy(self, console: Console) -> None:
        """Until the node has loaded its policy and listens; a line on the console tells for how long.

        Raises:
            BagError: it does not, or it is not found.
        """

        def is_found() -> bool:
            return self.count_publishers(STATUS) > 0

        def is_ready() -> bool:
            return self._images.get_subscription_count() > 0 and self._instructions.get_subscription_count() > 0

        with Progress(TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as progress:
            line = progress.add_task("waiting for the policy node", total=None)
            if not self._spin_until(is_found, DISCOVERY):
                raise BagError(
                    f"the policy node runs, but it was not found over DDS within {DISCOVERY:g} s; check the loopback "
                    "interface (ip link show lo) and ROS_AUTOMATIC_DISCOVERY_RANGE (here "
                    f"{os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE')}; with OFF nothing is found), or take another "
                    f"ROS_DOMAIN_ID (here {os.environ.get('ROS_DOMAIN_ID', '0')})"
                )
            progress.update(line, description="waiting for the policy node to load its policy")
            if not self._spin_until(is_ready, LOADING):
                raise BagError(f"no policy node was ready within {LOADING:g} s; it says: {self._status.message}")

    def ask(self, frame: Frame) -> EndEffectorCommand:
        """The command for a frame, waited for.

        Raises:
            BagError: none comes.
        """
        self._instruct(frame)
        stamps: set[int] = set()
        patience, deadline = RESEND, time.monotonic() + ANSWER
        while time.monotonic() < deadline:
            stamps.add(self._show(frame))
            if self._spin_until(lambda: bool(stamps & self._commands.keys()), patience):
                return self._commands[(stamps & self._commands.keys()).pop()]
            patience *= 2.0
        raise BagError(
            f"no command came for frame {frame.index} within {ANSWER:g} s; the policy node says: {self._status.message}"
        )

    def play(self, frames: Iterable[Frame]) -> dict[int, EndEffectorCommand]:
        """Show the frames at the pace they were recorded; the commands that came, by the frame's index."""
        shown: dict[int, int] = {}
        lead: float | None = None
        for frame in frames:
            recorded = frame.nanoseconds / 1e9
            lead = time.monotonic() - recorded if lead is None else lead
            self._spin_until(lambda: False, recorded + lead - time.monotonic())
            # Not before: the image ahead of it is answered under the instruction ahead of it.
            self._instruct(frame)
            shown[frame.index] = self._show(frame)
        # The node decodes the newest image, so the last one is answered last, unless it was lost.
        self._spin_until(lambda: self._stamp in self._commands, LAST)
        return {index: self._commands[stamp] for index, stamp in shown.items() if stamp in self._commands}

    def _instruct(self, frame: Frame) -> None:
        """At the beginning of an episode; the image must not overtake it."""
        if frame.episode != self._episode:
            self._instructions.publish(String(data=frame.instruction))
            if not self._instructions.wait_for_all_acked(Duration(seconds=ARRIVAL)):
                raise BagError(f"the policy node did not take the instruction within {ARRIVAL:g} s")
            self._episode = frame.episode

    def _show(self, frame: Frame) -> int:
        """Publish a frame under a stamp of now, which a policy node wants; that stamp in nanoseconds."""
        self._stamp = max(self._stamp + 1, int(self.get_clock().now().nanoseconds))
        frame.message.header.stamp = Time(nanoseconds=self._stamp).to_msg()
        self._images.publish(frame.message)
        return self._stamp

    def _spin_until(self, is_done: Callable[[], bool], seconds: float) -> bool:
        """Serve callbacks until something is so, or for so long at most."""
        deadline = time.monotonic() + seconds
        while not is_done():
            left = deadline - time.monotonic()
            if left <= 0.0:
                return False
            rclpy.spin_once(self, timeout_sec=min(left, 0.1))
            self._require_alive()
            if self._status.level == DiagnosticStatus.ERROR:
                raise BagError(f"the policy node says: {self._status.message}")
        return True

    def _on_command(self, command: EndEffectorCommand) -> None:
        # A repetition is as good as the command itself, which may have been lost; a stop has no tokens.
        if any(command.tokens):
            self._commands[nanoseconds(command.header.stamp)] = command

    def _on_status(self, status: DiagnosticStatus) -> None:
        self._status = status


@contextmanager
def playing(is_compressed: bool, require_alive: Callable[[], None]) -> Iterator[Player]:
    """A player whose policy node is ready."""
    rclpy.init()
    player = Player(is_compressed, require_alive)
    try:
        player.wait_for_policy(Console(stderr=True))
        yield player
    except ExternalShutdownException as error:
        # rclpy takes the context away before Python is told of Ctrl-C.
        raise KeyboardInterrupt from error
    finally:
        player.destroy_node()
        rclpy.try_shutdown()
