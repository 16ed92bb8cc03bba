"""What makes an image or an instruction unfit to move an arm by."""

from __future__ import annotations

from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image

from specvla_ros.nodes.conversion import RGB, compressed_to_rgb, image_to_rgb

LONGEST_INSTRUCTION = 1000
"""Characters; a longer one is no instruction, and its prompt would take a model's memory."""


class Refusal(Exception):
    """An input gives no command; the message says why.

    Attributes:
        kind: what is counted in the diagnostics.
    """

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(slots=True)
class Arrival:
    """An image message, when it came by the monotonic clock, and its picture once somebody has needed it."""

    message: Image | CompressedImage
    seconds: float
    picture: RGB | None = None

    def rgb(self) -> RGB:
        """The picture, (H, W, 3) uint8.

        Raises:
            ImageError: the message holds none.
        """
        if self.picture is None:
            compressed = isinstance(self.message, CompressedImage)
            self.picture = compressed_to_rgb(self.message) if compressed else image_to_rgb(self.message)
        return self.picture


@dataclass(frozen=True, slots=True)
class Instruction:
    """What to do, and when it came by the ROS clock [ns]; every message on the topic starts a new episode."""

    text: str = ""
    episode: int = 0
    received: int = 0


def require_instruction(instruction: Instruction, now: int, limit: float) -> None:
    """There is something to do, in whole words, and it was said no more than `limit` seconds ago (0: whenever).

    Raises:
        Refusal: there is none, it is no text or too long to be one, or it is stale.
    """
    if not instruction.text.strip():
        raise Refusal("images dropped without an instruction", "no instruction: publish one on the topic instruction")
    if len(instruction.text) > LONGEST_INSTRUCTION:
        raise Refusal(
            "images dropped under an unusable instruction",
            f"unusable instruction: it has {len(instruction.text)} characters; expected at most {LONGEST_INSTRUCTION}",
        )
    # What rclpy puts in the place of bytes that are not UTF-8.
    if "\N{REPLACEMENT CHARACTER}" in instruction.text:
        raise Refusal(
            "images dropped under an unusable instruction",
            f"unusable instruction: {instruction.text!r} was not UTF-8 text; publish it as UTF-8",
        )
    age = (now - instruction.received) / 1e9
    if limit and age > limit:
        raise Refusal(
            "images dropped under a stale instruction",
            f"stale instruction: it came {age:.1f} s ago; the limit max_instruction_age is {limit} s: publish it again",
        )


def require_fresh(age: float, waited: float, limit: float) -> None:
    """An image's stamp is at most `limit` seconds old, or in the future (0: whatever it says).

    Args:
        age: seconds since the stamp by the ROS clock.
        waited: seconds of it that the image spent in this node.

    Raises:
        Refusal: it is stale.
    """
    if limit and abs(age) > limit:
        raise Refusal(
            "stale images",
            f"stale image: its stamp is {age:.3f} s old, {waited:.3f} s of it in this node; the limit max_image_age is "
            f"{limit} s: raise it for a slow model, else check the camera's clock and that use_sim_time is the same "
            "everywhere",
        )


def require_frame(frame: str, expected: str) -> None:
    """The camera is the one that the episode began with.

    Raises:
        Refusal: the frame_id changed.
    """
    if frame != expected:
        raise Refusal(
            "images of another frame",
            f"the image's frame_id changed from {expected!r} to {frame!r}: another camera publishes on the topic "
            "image; a new instruction begins with the new one",
        )
