"""What a bag holds for a policy: camera images in order, each under the instruction in force."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from specvla_ros.errors import BagError, ImageError
from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes.bag import BagReader
from specvla_ros.nodes.conversion import compressed_to_rgb, image_to_rgb
from specvla_ros.nodes.messages import nanoseconds

IMAGE_TOPICS = ("/image", "/image/compressed")


@dataclass(frozen=True, slots=True)
class Topics:
    """Names in the bag, or their ends.

    Attributes:
        image: empty is one of `IMAGE_TOPICS`, the first that the bag holds.
    """

    image: str = ""
    instruction: str = "/instruction"
    command: str = "/ee_command"


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image.

    Attributes:
        index: in the bag, from 0, the images before the first instruction counted.
        nanoseconds: when it was recorded.
        episode: counts the instructions from 1; each one, the same again too, begins an episode.
    """

    index: int
    nanoseconds: int
    message: Image | CompressedImage
    instruction: str
    episode: int

    @property
    def stamp(self) -> int:
        """Of the image, in nanoseconds: the command that answered it bears the same."""
        return nanoseconds(self.message.header.stamp)

    def rgb(self) -> NDArray[Any]:
        """(H, W, 3) uint8.

        Raises:
            ImageError: it cannot be decoded.
        """
        try:
            if isinstance(self.message, CompressedImage):
                return compressed_to_rgb(self.message)
            return image_to_rgb(self.message)
        except ImageError as error:
            raise ImageError(f"image {self.index} of the bag, counted from 0: {error}") from error


class Recording:
    """The frames of a bag, read again from its start as often as they are asked for.

    Args:
        bag: open.
        instruction: what to do in all of it, instead of what its instruction topic says.

    Raises:
        BagError: it lacks images or instructions of the types that a policy takes.
    """

    def __init__(self, bag: BagReader, topics: Topics, instruction: str = "") -> None:
        self._bag = bag
        self._topics = topics
        self._instruction = instruction
        self._images = _find_images(bag, topics.image)
        self._instructions = None if instruction else bag.find(topics.instruction, String)

    @property
    def is_compressed(self) -> bool:
        """Whether the images are CompressedImage messages."""
        return str(self._images.msgtype).endswith("/CompressedImage")

    @property
    def image_count(self) -> int:
        """Of all images, also those before the first instruction."""
        return int(self._images.msgcount)

    def frames(self) -> Iterator[Frame]:
        """Those under an instruction, in order.

        Raises:
            BagError: there is none.
        """
        wanted = [self._images, *([self._instructions] if self._instructions else [])]
        instruction, episode, index, is_empty = self._instruction, int(bool(self._instruction)), 0, True
        for _, recorded, message in self._bag.merged(wanted):
            if isinstance(message, String):
                instruction, episode = message.data, episode + 1
                continue
            if instruction.strip():
                is_empty = False
                yield Frame(index, recorded, message, instruction, episode)
            index += 1
        if is_empty:
            raise BagError(f"the bag holds {index} images on {self._images.topic}, and none after an instruction")

    def commands(self) -> dict[int, EndEffectorCommand]:
        """Commands with tokens, by the stamp of their image in nanoseconds.

        A repetition counts too, since the command itself may have been lost; a stop has no tokens.

        Raises:
            BagError: there is none.
        """
        found = self._bag.find(self._topics.command, EndEffectorCommand)
        commands = {
            nanoseconds(command.header.stamp): command
            for _, _, command in self._bag.merged([found])
            if any(command.tokens)
        }
        if not commands:
            raise BagError(
                f"{found.topic} holds no command with tokens; in realtime mode the LIBERO bridge records what the arm "
                "was told instead: record in lockstep"
            )
        return commands


def _find_images(bag: BagReader, topic: str) -> Any:
    errors = []
    for name in [topic] if topic else IMAGE_TOPICS:
        try:
            return bag.find(name, Image, CompressedImage)
        except BagError as error:
            errors.append(error)
    raise errors[0]
