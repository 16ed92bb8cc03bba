"""Quality of service of the topics, as the README's table states it."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Sensor data, the newest only."""
RELIABLE_IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""What is lost on the way is sent again; hears reliable publishers only."""

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Who starts late still gets the last message: what to do, where the episode stands."""

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""The newest only, from whoever publishes it now, reliable or not."""

COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
EVERY_COMMAND = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""For a subscriber to whom a repetition must not hide the command before it."""

STATS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def every(profile: QoSProfile) -> QoSProfile:
    """The same for a subscription to which each message counts, whoever publishes and however long nobody takes it.

    One that keeps the newest only keeps it of all publishers together: a press, and then another button's false.
    """
    return QoSProfile(depth=100, reliability=profile.reliability, durability=profile.durability)
