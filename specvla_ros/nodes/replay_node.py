"""/replay: takes the policy's place and gives the recorded commands of a bag, one for each step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from specvla_ros.errors import BagError
from specvla_ros.msg import EndEffectorCommand, EpisodeStatus
from specvla_ros.nodes import qos
from specvla_ros.nodes.bag import BagReader
from specvla_ros.nodes.parameters import ParameterSpec, declare
from specvla_ros.nodes.run import run_node

PARAMETERS = (ParameterSpec("bag", "", "rosbag2 folder of a recorded episode (mcap or sqlite3)"),)
FAREWELL = 1.0
"""Seconds that the last status of a bridge that is gone may still be on its way."""
SAME_EPISODE = ("suite", "task", "episode", "seed", "max_steps")


class ReplayNode(Node):
    """Answers the image of the bridge's step n with the bag's command of step n.

    Raises:
        BagError: the bag cannot be read or holds no commands, or the bridge runs another episode than the recorded, or
            it leaves before the end.
    """

    def __init__(self) -> None:
        super().__init__("replay")
        folder = declare(self, PARAMETERS)["bag"]
        if not folder:
            raise BagError("parameter bag is empty; give the rosbag2 folder of a recorded episode")
        with BagReader(Path(folder).expanduser()) as bag:
            self._commands = [command for _, command in bag.messages("/ee_command")]
            statuses = [status for _, status in bag.messages("/episode_status")]
        if not self._commands or not statuses:
            raise BagError(
                f"bag {folder} holds {len(self._commands)} commands and no complete episode; record one again"
            )
        steps = max(status.step for status in statuses)
        if len(self._commands) > steps + 1:  # what ros2 bag record hears: repetitions, and what came too late
            raise BagError(
                f"bag {folder} holds {len(self._commands)} commands for {steps} steps, so some made none; record the "
                "episode by the bridge's parameter bag"
            )
        self._recorded = statuses[0]
        self._played = 0
        self._image: Image | CompressedImage | None = None
        self._status: EpisodeStatus | None = None
        self._publisher = self.create_publisher(EndEffectorCommand, "ee_command", qos.COMMAND)
        self._statuses = self.create_subscription(EpisodeStatus, "episode_status", self._on_status, qos.LATCHED)
        self.create_subscription(Image, "image", self._on_image, qos.IMAGE)
        self.create_subscription(CompressedImage, "image/compressed", self._on_image, qos.IMAGE)

    def run(self) -> None:
        """Answer images until the bridge says that its episode is over."""
        self.get_logger().info(f"{len(self._commands)} recorded commands; waiting for the bridge's first image")
        last_seen = time.monotonic()
        while self._status is None or not self._status.done:
            rclpy.spin_once(self, timeout_sec=0.1)
            if self._status is None or self.count_publishers(self._statuses.topic_name) > 0:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > FAREWELL:
                raise BagError(f"the bridge left after {self._played} commands, before its episode was over")
        self.get_logger().info(f"played {self._played} of {len(self._commands)} commands")

    def _on_status(self, status: EpisodeStatus) -> None:
        for name in SAME_EPISODE:
            recorded, running = getattr(self._recorded, name), getattr(status, name)
            if recorded != running:
                raise BagError(
                    f"the bag was recorded with {name} {recorded} but the bridge runs {running}; start the bridge with "
                    + ", ".join(f"{key}: {getattr(self._recorded, key)}" for key in SAME_EPISODE)
                )
        self._status = status
        self._answer()

    def _on_image(self, image: Image | CompressedImage) -> None:
        self._image = image
        self._answer()

    def _answer(self) -> None:
        """Once an image and the status of the same stamp are here: the status says which step the image shows."""
        image, status = self._image, self._status
        if image is None or status is None or image.header.stamp != status.header.stamp or status.done:
            return
        if status.step >= len(self._commands):
            raise BagError(f"the bag ends after {len(self._commands)} commands but the bridge's episode goes on")
        command = self._commands[status.step]
        command.header = image.header
        self._publisher.publish(command)
        self._played = max(self._played, status.step + 1)


def main(args: Sequence[str] | None = None) -> None:
    """Play one bag and end."""
    run_node("replay", ReplayNode, ReplayNode.run, args)


if __name__ == "__main__":
    main()
