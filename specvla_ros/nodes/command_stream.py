"""What the arm is told: a new command at once, repeated while it holds, then at rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.time import Time
from std_msgs.msg import Float64MultiArray

from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes.clock_watch import Standstill
from specvla_ros.nodes.gate import Gate
from specvla_ros.nodes.messages import nanoseconds, set_motion, twist_message
from specvla_ros.nodes.safety import (
    AT_REST,
    Gripper,
    Values,
    debounce,
    keep_in_box,
    limit_change,
    limit_gripper,
    limit_speed,
)
from specvla_ros.nodes.settings import Settings
from specvla_ros.policy import ACTION_LENGTH, Action, Thresholds


class Publisher(Protocol):
    """What the stream needs of a publisher."""

    def publish(self, message: Any, /) -> None: ...


class CommandStream:
    """The only publisher of motion: whatever thread sends, nothing moves once the gate has closed.

    Args:
        now: nanoseconds of the ROS clock.
        commands, twists, grippers: of EndEffectorCommand, TwistStamped and Float64MultiArray.
        count: counts events by name for the diagnostics.
    """

    def __init__(
        self,
        now: Callable[[], int],
        commands: Publisher,
        twists: Publisher,
        grippers: Publisher,
        settings: Settings,
        count: Callable[[str], None],
    ) -> None:
        self._lock = threading.RLock()
        self._now = now
        self._commands = commands
        self._twists = twists
        self._grippers = grippers
        self._settings = settings
        self._count = count
        self._gate = Gate()
        self._standstill = Standstill()
        self._episode = 0
        self._last: EndEffectorCommand | None = None
        self._wanted: Values | None = None
        """The motion that holds, as it was before speed limit and box; None: nothing holds."""
        self._sent = 0.0
        """When that was decoded, by the monotonic clock."""
        self._motion = AT_REST
        """What went out last."""
        self._gripper: Gripper | None = None
        self._pose: PoseStamped | None = None

    @property
    def settings(self) -> Settings:
        """In force from the next command on."""
        return self._settings

    @property
    def gate(self) -> Gate:
        """Whether motion may leave."""
        return self._gate

    def change_settings(self, settings: Settings) -> None:
        """Replace all settings at once. What holds does not outlive the beginning or the end of a dry run."""
        with self._lock:
            if settings.dry_run != self._settings.dry_run:
                self.rest()
            self._settings = settings

    def change_gate(self, change: Callable[[Gate], Gate]) -> str:
        """Open or close the gate; closing it sends one command without motion. The reason why it is closed now."""
        with self._lock:
            was_open = not self._gate.reason
            self._gate = change(self._gate)
            if was_open and self._gate.reason:
                self._stop()
            return self._gate.reason

    def pose_arrived(self, pose: PoseStamped) -> None:
        """Where the hand is."""
        with self._lock:
            self._pose = pose

    def send(self, action: Action, thresholds: Thresholds, header: Any, episode: int) -> bool:
        """Publish a finite action, as far as its limits allow, and let it hold.

        One that is older than `hold_time` already is published as a command, which says its age, and moves no arm.

        Args:
            header: of the image that the action was decoded from.
            episode: in which decoding began.

        Returns:
            False when the gate is closed or another episode has begun: nothing was published.
        """
        with self._lock:
            if self._gate.reason or episode != self._episode:
                return False
            settings = self._settings
            if self._gripper is None or not self.forbids_motion():
                opening = limit_gripper(float(action.values[-1]))
                self._gripper = debounce(self._gripper, opening, settings.gripper_decisions)
            self._sent = time.monotonic()
            self._wanted = limit_change(action.values[:-1], self._motion, settings.change_limits)
            sequence = self._last.sequence + 1 if self._last else 1
            self._last = EndEffectorCommand(header=header, sequence=sequence, gripper=self._gripper.value)
            self._last.tokens, self._last.thresholds = list(action.tokens), list(thresholds)
            self._publish(self._allowed(self._wanted), held=False, too_old=self._is_too_old(self._last))
            return True

    def repeat(self) -> bool:
        """The timer's part: the last command again while it holds, or its end.

        By the ROS clock it holds for `hold_time` after its image's stamp. Simulated time may cease, and with it that
        count; so it ends, too, when that clock has not moved for `hold_time` of wall time.

        Returns:
            False when it ended because the clock stands still.
        """
        with self._lock:
            self._standstill.look(self._now())
            if self._wanted is None or self._last is None:
                return True
            too_old = self._is_too_old(self._last)
            stands_still = not too_old and self._standstill.outlasts(self._settings.hold_time, since=self._sent)
            if too_old or stands_still:
                self._count("commands that expired")
                self.rest()
            else:
                self._count("commands repeated")
                self._publish(self._allowed(self._wanted), held=True)
            return not stands_still

    def rest(self) -> None:
        """One command without motion if a command holds; then nothing until the next action."""
        with self._lock:
            if self._wanted is not None:
                self._stop()

    def begin_episode(self, episode: int) -> None:
        """What was decoded before counts no longer."""
        with self._lock:
            self.rest()
            self._episode = episode
            if self._gripper is not None:  # what it holds, it holds under another instruction too
                self._gripper = Gripper(self._gripper.value)

    def workspace_trouble(self) -> str:
        """Why the box is not applied or forbids every motion; empty when it is applied."""
        with self._lock:
            settings = self._settings
            if self._pose is None:
                return f"{'no motion' if settings.pose_required else 'not applied'}: no ee_pose has come"
            frame = self._pose.header.frame_id
            if frame != settings.twist_frame:
                return f"no motion: ee_pose is in the frame {frame!r} instead of twist_frame {settings.twist_frame!r}"
            if not np.isfinite(self._position(self._pose)).all():
                return "no motion: ee_pose is not finite"
            age = self._age(self._pose)
            if abs(age) > settings.max_pose_age:
                return f"no motion: ee_pose is {age:.3f} s old; the limit max_pose_age is {settings.max_pose_age} s"
            return ""

    def forbids_motion(self) -> bool:
        """Whether where the hand is forbids every motion, that of the gripper too."""
        return self.workspace_trouble().startswith("no motion")

    def _allowed(self, motion: Values) -> Values:
        """What of a motion may go out now: a speed limit that was lowered and a hand that moved count at once."""
        settings = self._settings
        limited = limit_speed(motion, settings.speed_limits)
        if self.forbids_motion():
            return AT_REST
        if self._pose is None:
            return limited
        return keep_in_box(limited, self._position(self._pose), settings.workspace, settings.position_scale)

    def _is_too_old(self, command: EndEffectorCommand) -> bool:
        """Whether a command holds no longer; an image from the future holds no longer than one from the past."""
        return abs(self._age(command)) > self._settings.hold_time

    def _stop(self) -> None:
        """No motion, the gripper as it was: an arm that was never told anything has no gripper to keep as it is."""
        self._wanted = None
        if self._last is None:
            self._publish_twist(AT_REST)
            return
        self._last.tokens = [0] * ACTION_LENGTH
        self._publish(AT_REST, held=True)

    def _publish(self, motion: Values, held: bool, too_old: bool = False) -> None:
        assert self._last is not None
        self._motion = AT_REST if too_old else motion
        set_motion(self._last, motion)
        self._last.held, self._last.age = held, self._age(self._last)
        self._last.dry_run = self._settings.dry_run
        self._commands.publish(self._last)
        if not (too_old or self.forbids_motion()):
            self._publish_gripper(self._last.gripper)
        self._publish_twist(self._motion)

    def _publish_gripper(self, opening: float) -> None:
        """0 closed .. 1 open, as the position of the finger joints."""
        settings = self._settings
        if settings.dry_run:
            return
        position = settings.gripper_closed + opening * (settings.gripper_open - settings.gripper_closed)
        self._grippers.publish(Float64MultiArray(data=[position]))

    def _publish_twist(self, motion: Values) -> None:
        settings = self._settings
        if settings.dry_run:
            return
        twist: TwistStamped = twist_message(motion, settings.linear_scale, settings.angular_scale)
        # A servo controller counts its time-out from this stamp, so it is the command's time, not the image's.
        twist.header.stamp = Time(nanoseconds=self._now()).to_msg()
        twist.header.frame_id = settings.twist_frame
        self._twists.publish(twist)

    def _age(self, stamped: Any) -> float:
        """Seconds since a message's stamp."""
        return (self._now() - nanoseconds(stamped.header.stamp)) / 1e9

    @staticmethod
    def _position(pose: PoseStamped) -> Values:
        point = pose.pose.position
        return np.array([point.x, point.y, point.z])
