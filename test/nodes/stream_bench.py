"""A command stream whose clock and publishers are in the test's hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import Header

from specvla_ros.nodes.command_stream import CommandStream
from specvla_ros.nodes.policy_parameters import PARAMETERS
from specvla_ros.nodes.settings import Settings
from specvla_ros.policy import Action, DecodeStats

MILLISECOND = 1_000_000
START = 1_000_000 * MILLISECOND


class Log:
    """A publisher that keeps what it was given."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def publish(self, message: Any) -> None:
        self.messages.append(copy.deepcopy(message))


class Bench:
    """A stream that is active, its clock in the test's hand."""

    def __init__(self, **values: Any) -> None:
        self.values = {spec.name: spec.default for spec in PARAMETERS} | {"hold_time": 0.2} | values
        self.now = START
        self.commands, self.twists, self.grippers, self.counts = Log(), Log(), Log(), []
        self.stream = CommandStream(
            lambda: self.now,
            self.commands,
            self.twists,
            self.grippers,
            Settings.from_values(self.values),
            self.counts.append,
        )
        self.stream.change_gate(lambda gate: gate.with_active(True))

    def send(self, *motion: float, gripper: float = 1.0, age: int = 0, episode: int = 0) -> bool:
        """Send an action for an image that is `age` milliseconds old."""
        header, values = Header(), np.array([*motion, *[0.0] * (6 - len(motion)), gripper])
        header.stamp.sec, header.stamp.nanosec = divmod(self.now - age * MILLISECOND, 1_000_000_000)
        action = Action(values, (1, 2, 3, 4, 5, 6, 7), DecodeStats((5,), 2, (0,) * 7))
        return self.stream.send(action, tuple(range(7)), header, episode)

    def wait(self, milliseconds: int) -> None:
        """Time goes by, then the timer fires."""
        self.now += milliseconds * MILLISECOND
        self.stream.repeat()

    def change(self, **values: Any) -> None:
        self.values |= values
        self.stream.change_settings(Settings.from_values(self.values))

    def pose(self, x: float, frame: str = "base_link", age: int = 0) -> None:
        pose = PoseStamped()
        pose.header.frame_id, pose.pose.position.x = frame, x
        pose.header.stamp.sec, pose.header.stamp.nanosec = divmod(self.now - age * MILLISECOND, 1_000_000_000)
        self.stream.pose_arrived(pose)

    @property
    def last(self) -> Any:
        return self.commands.messages[-1]

    @property
    def speeds(self) -> list[float]:
        return [command.delta_position.x for command in self.commands.messages]
