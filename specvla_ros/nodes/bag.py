"""Recorded episodes: rosbag2 in both its storage formats, written and read by rosbags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from sensor_msgs.msg import Image
from std_msgs.msg import String

from specvla_ros.errors import BagError
from specvla_ros.msg import DecodeStats, EndEffectorCommand, EpisodeStatus
from specvla_ros.share import share_folder

TOPICS: dict[str, Any] = {
    "/image": Image,
    "/instruction": String,
    "/ee_command": EndEffectorCommand,
    "/episode_status": EpisodeStatus,
}
STORAGES = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}


class BagWriter:
    """Writes an episode's topics into a new rosbag2 folder.

    Args:
        folder: must not exist yet.
        storage: "sqlite3" or "mcap".

    Raises:
        BagError: the folder exists.
    """

    def __init__(self, folder: Path, storage: str) -> None:
        if folder.exists():
            raise BagError(f"bag {folder} exists already; choose another folder or remove it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        types = _typestore()
        self._writer = Writer(folder, version=9, storage_plugin=STORAGES[storage])
        self._writer.open()
        self._connections: dict[str, Connection] = {
            topic: self._writer.add_connection(topic, type_name(kind), typestore=types)
            for topic, kind in TOPICS.items()
        }

    def write(self, topic: str, nanoseconds: int, message: Any) -> None:
        """Append one message at its time."""
        self._writer.write(self._connections[topic], nanoseconds, serialize_message(message))

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()


class BagReader:
    """Reads the topics of a recorded episode.

    Raises:
        BagError: not a rosbag2 folder, or one that was not finished.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._reader = Reader(folder)
            self._reader.open()
        except (ReaderError, OSError) as error:
            raise BagError(f"{folder} cannot be read as a rosbag2 folder ({error})") from error

    def messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        """(nanoseconds, message) of one of `TOPICS`, in order, however the recording robot had remapped it.

        Raises:
            BagError: the bag does not hold the topic with its type.
        """
        kind = TOPICS[topic]
        wanted = [
            connection
            for connection in self._reader.connections
            if connection.topic.endswith(topic) and connection.msgtype == type_name(kind)
        ]
        if not wanted:
            held = ", ".join(f"{c.topic} ({c.msgtype})" for c in self._reader.connections) or "nothing"
            raise BagError(f"bag {self._folder} has no topic {topic} of type {type_name(kind)}; it holds {held}")
        for _, nanoseconds, data in self._reader.messages(wanted):
            yield nanoseconds, deserialize_message(bytes(data), kind)

    def close(self) -> None:
        """Close the files."""
        self._reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def type_name(kind: Any) -> str:
    """package/msg/Name of a message class."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def _typestore() -> Typestore:
    """The common messages and this package's own, registered from their text."""
    store = get_typestore(Stores.ROS2_KILTED)
    folder = share_folder() / "msg"
    for kind in (DecodeStats, EndEffectorCommand, EpisodeStatus):
        name = type_name(kind)
        store.register(get_types_from_msg((folder / f"{kind.__name__}.msg").read_text(), name))
    return store
