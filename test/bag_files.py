"""Bags for tests, written without a robot: grey images that brighten, and what the fake policy answers to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rclpy.time import Time
from std_msgs.msg import String

from specvla_ros.fake_policy import FakePolicy
from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes.bag import BagWriter
from specvla_ros.nodes.conversion import rgb_to_compressed, rgb_to_image
from specvla_ros.policy import Thresholds

STRICT: Thresholds = (0, 0, 0, 0, 0, 0, 0)


def grey(index: int, size: int = 64) -> np.ndarray:
    return np.full((size, size, 3), (40 + 20 * index) % 256, np.uint8)


def write_bag(
    folder: Path,
    frames: int = 5,
    *,
    compressed: bool = False,
    storage: str = "mcap",
    period: float = 0.05,
    size: int = 64,
    instructions: Sequence[tuple[int, str]] = ((0, "pick up the bowl"),),
    change: Callable[[int, EndEffectorCommand], None] = lambda index, command: None,
) -> Path:
    """An episode of `frames` images `period` seconds apart.

    Args:
        size: height and width of the images in pixels.
        instructions: (frame, text): said just before that frame.
        change: may alter the command of a frame before it is written.
    """
    policy, writer = FakePolicy(), BagWriter(folder, storage)
    for index in range(frames):
        stamp = 1_700_000_000_000_000_000 + int(index * period * 1e9)
        for first, text in instructions:
            if first == index:
                writer.write("/instruction", stamp - 1_000_000, String(data=text))
        image = grey(index, size)
        message = rgb_to_compressed(image, 90) if compressed else rgb_to_image(image)
        message.header.stamp = Time(nanoseconds=stamp).to_msg()
        writer.write("/image/compressed" if compressed else "/image", stamp, message)
        command = EndEffectorCommand(tokens=list(policy.act(image, "pick up").tokens), thresholds=list(STRICT))
        command.header.stamp = message.header.stamp
        change(index, command)
        writer.write("/ee_command", stamp + 10_000_000, command)
        command.held, command.tokens = True, [0] * 7
        writer.write("/ee_command", stamp + 20_000_000, command)
    writer.close()
    return folder
