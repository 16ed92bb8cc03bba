"""Actions as the messages that leave the policy node, and the time of those that reach it."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import TwistStamped
from rclpy.duration import Duration
from visualization_msgs.msg import Marker

from specvla_ros.msg import DecodeStats, EndEffectorCommand
from specvla_ros.nodes.safety import Values
from specvla_ros.policy import Action, Thresholds

CAPTION_HEIGHT, CAPTION_SIZE, CAPTION_LIFE = 1.0, 0.06, 1.0
"""Metres above the frame's origin, metres of a line, and seconds without a new action after which it goes."""


def nanoseconds(stamp: Any) -> int:
    """A builtin_interfaces/Time as one number."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def set_motion(command: EndEffectorCommand, motion: Values) -> None:
    """Write (6,) into a command."""
    position, rotation = command.delta_position, command.delta_rotation
    position.x, position.y, position.z, rotation.x, rotation.y, rotation.z = map(float, motion)


def twist_message(motion: Values, linear_scale: float, angular_scale: float) -> TwistStamped:
    """(6,) as a twist in m/s and rad/s, its header left empty."""
    twist = TwistStamped()
    linear, angular = twist.twist.linear, twist.twist.angular
    linear.x, linear.y, linear.z = (float(value) * linear_scale for value in motion[:3])
    angular.x, angular.y, angular.z = (float(value) * angular_scale for value in motion[3:])
    return twist


def stats_message(action: Action, header: Any, queue_ms: float, total_ms: float) -> DecodeStats:
    """An action's statistics as a message."""
    stats, times = action.stats, action.stats.milliseconds
    return DecodeStats(
        header=header,
        tokens=list(action.tokens),
        deviations=list(stats.deviations),
        accepted=list(stats.accepted),
        rounds=stats.rounds,
        target_forwards=stats.forwards,
        accept_length=stats.accept_length,
        prepare_ms=times.get("prepare", 0.0),
        vision_ms=times.get("vision", 0.0),
        prefill_ms=times.get("prefill", 0.0),
        draft_ms=times.get("draft", 0.0),
        verify_ms=times.get("verify", 0.0),
        decode_ms=times.get("total", 0.0),
        queue_ms=queue_ms,
        total_ms=total_ms,
    )


def caption(stats: DecodeStats, thresholds: Thresholds, frame: str) -> Marker:
    """What an action cost, in words above the frame's origin, for RViz."""
    motion, gripper = thresholds[:-1], thresholds[-1]
    marker = Marker(type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, ns="specvla")
    marker.header.frame_id = frame
    marker.pose.position.z, marker.pose.orientation.w = CAPTION_HEIGHT, 1.0
    marker.scale.z = CAPTION_SIZE
    marker.color.r = marker.color.g = marker.color.b = marker.color.a = 1.0
    marker.lifetime = Duration(seconds=CAPTION_LIFE).to_msg()
    marker.text = (
        f"{stats.accept_length:.1f} tokens per forward, {stats.total_ms:.0f} ms\n"
        f"threshold {' '.join(map(str, dict.fromkeys(motion)))}, gripper {gripper}"
    )
    return marker
