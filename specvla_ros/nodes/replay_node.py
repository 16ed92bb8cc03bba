"""/replay: takes the policy's place and gives the recorded commands of a bag, one for each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from specvla_ros.errors import BagError
from specvla_ros.msg import EndEffectorCommand, EpisodeStatus
from specvla_ros.nodes import qos
from specvla_ros.nodes.bag import BagReader
from specvla_ros.nodes.parameters import ParameterSpec, declare
from specvla_ros.nodes.run import run_node

PARAMETERS = (ParameterSpec("bag", "", "rosbag2 folder of a recorded episode (mcap or sqlite3)"),)
SAME_EPISODE = ("suite", "task", "episode", "seed", "max_steps")


class ReplayNode(Node):
    """Answers the n-th image of the bridge with the n-th command of the bag; the same image again, with the same one.

    Raises:
        BagError: the bag cannot be read or holds no commands, or the bridge runs another episode than the recorded.
    """

    def __init__(self) -> None:
        super().__init__("replay")
        folder = declare(self, PARAMETERS)["bag"]
        if not folder:
            raise BagError("parameter bag is empty; give the rosbag2 folder of a recorded episode")
        with BagReader(Path(folder)) as bag:
            self._commands = [command for _, command in bag.messages("/ee_command")]
            self._recorded = next((status for _, status in bag.messages("/episode_status")), None)
        if not self._commands or self._recorded is None:
            raise BagError(f"bag {folder} holds {len(self._commands)} commands and no complete episode; record one again")
        self._played = 0
        self._stamp: object = None
        self._is_same_episode = False
        self._done = False
        self._publisher = self.create_publisher(EndEffectorCommand, "ee_command", qos.COMMAND)
        self.create_subscription(EpisodeStatus, "episode_status", self._on_status, qos.LATCHED)
        self.create_subscription(Image, "image", self._on_image, qos.IMAGE)

    def run(self) -> None:
        """Answer images until the bridge says that its episode is over."""
        self.get_logger().info(f"{len(self._commands)} recorded commands; waiting for the bridge's first image")
        while not self._done:
            rclpy.spin_once(self, timeout_sec=0.1)
        self.get_logger().info(f"played {self._played} of {len(self._commands)} commands")

    def _on_status(self, status: EpisodeStatus) -> None:
        for name in SAME_EPISODE:
            recorded, running = getattr(self._recorded, name), getattr(status, name)
            if recorded != running:
                raise BagError(
                    f"the bag was recorded with {name} {recorded} but the bridge runs {running}; start the bridge with "
                    + ", ".join(f"{key}: {getattr(self._recorded, key)}" for key in SAME_EPISODE)
                )
        self._is_same_episode = True
        self._done = status.done

    def _on_image(self, image: Image) -> None:
        if not self._is_same_episode:
            return  # the bridge sends the image again; by then its status has come
        if image.header.stamp != self._stamp:
            if self._played == len(self._commands):
                raise BagError(f"the bag ends after {self._played} commands but the bridge's episode goes on")
            self._stamp = image.header.stamp
            self._played += 1
        command = self._commands[self._played - 1]
        command.header = image.header
        self._publisher.publish(command)


def main(args: Sequence[str] | None = None) -> None:
    """Play one bag and end."""
    run_node("replay", ReplayNode, ReplayNode.run, args)


if __name__ == "__main__":
    main()
