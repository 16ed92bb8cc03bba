"""Recorded episodes: rosbag2 in both its storage formats, written and read by rosbags."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from specvla_ros.errors import BagError
from specvla_ros.msg import DecodeStats, EndEffectorCommand, EpisodeStatus
from specvla_ros.share import share_folder

try:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    from rosbags.typesys.store import Typestore
except ImportError as error:
    raise BagError("bags are written and read by rosbags: pip install rosbags==0.11.9") from error

TOPICS: dict[str, Any] = {
    "/image": Image,
    "/image/compressed": CompressedImage,
    "/instruction": String,
    "/ee_command": EndEffectorCommand,
    "/decode_stats": DecodeStats,
    "/episode_status": EpisodeStatus,
}
URI_SIGNS = "#?%"
"""rosbags names a sqlite3 file by a URI, where these mean something: it would be written elsewhere."""
STORAGES = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}


class BagWriter:
    """Writes an episode's topics into a new rosbag2 folder.

    Args:
        folder: must not exist yet.
        storage: "sqlite3" or "mcap".

    Raises:
        BagError: the folder exists, cannot be written or be named so; the methods, too, raise it when the disk is full.
    """

    def __init__(self, folder: Path, storage: str) -> None:
        if folder.exists():
            raise BagError(f"bag {folder} exists already; choose another folder or remove it")
        if storage == "sqlite3" and set(URI_SIGNS) & set(str(folder)):
            raise BagError(
                f"bag {folder} cannot be of storage sqlite3 with one of {URI_SIGNS} in its path; choose another folder "
                "or mcap"
            )
        self._folder = folder
        self._types = _typestore()
        self._connections: dict[str, Connection] = {}
        with self._telling():
            self._writer = Writer(folder, version=9, storage_plugin=STORAGES[storage])
            self._writer.open()

    def write(self, topic: str, nanoseconds: int, message: Any) -> None:
        """Append one message of one of `TOPICS` at its time."""
        with self._telling():
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(
                    topic, type_name(TOPICS[topic]), typestore=self._types
                )
            self._writer.write(self._connections[topic], nanoseconds, serialize_message(message))

    def close(self) -> None:
        """Finish the files."""
        with self._telling():
            self._writer.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What the storages raise where nothing can be written, as a sentence."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise BagError(
                f"bag {self._folder} cannot be written ({error}); make room on its disk or choose another folder"
            ) from error


class BagReader:
    """Reads the topics of a recorded episode.

    Raises:
        BagError: not a rosbag2 folder, or one that was not finished.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._types = _typestore()
        try:
            self._reader = Reader(folder)
            self._reader.open()
        except Exception as error:  # beside the reader's own those of YAML, storage and compression, for damaged bytes
            raise BagError(
                f"{folder} cannot be read as a rosbag2 folder ({str(error) or type(error).__name__})"
            ) from error

    def messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        """(nanoseconds, message) of one of `TOPICS`, in order.

        Raises:
            BagError: see `find`.
        """
        found = self.find(topic, TOPICS[topic])
        return ((nanoseconds, message) for _, nanoseconds, message in self.merged([found]))

    def find(self, topic: str, *kinds: Any) -> Connection:
        """The topic of this name and one of the types, or the one that ends so: a robot may have remapped it.

        Raises:
            BagError: there is none, or there are several, or the type was another one when it was recorded.
        """
        names = [type_name(kind) for kind in kinds]
        typed = [connection for connection in self._reader.connections if connection.msgtype in names]
        found = [connection for connection in typed if connection.topic == topic]
        found = found or [connection for connection in typed if connection.topic.endswith(f"/{topic.lstrip('/')}")]
        if not found:
            held = ", ".join(f"{held.topic} ({held.msgtype})" for held in self._reader.connections) or "nothing"
            raise BagError(f"bag {self._folder} has no topic {topic} of type {' or '.join(names)}; it holds {held}")
        if len(found) > 1:
            several = ", ".join(connection.topic for connection in found)
            raise BagError(f"bag {self._folder} has several topics {topic}: {several}; name one of them in full")
        if found[0].digest not in ("", self._types.hash_rihs01(found[0].msgtype)):
            raise BagError(
                f"{found[0].topic} of bag {self._folder} was recorded with another definition of {found[0].msgtype} "
                "than the installed one; record it again, or read it with the version that recorded it"
            )
        return found[0]

    def merged(self, connections: Sequence[Connection]) -> Iterator[tuple[Connection, int, Any]]:
        """(topic, nanoseconds, message) of the topics found, in the order of their times.

        Raises:
            BagError: a message cannot be read.
        """
        try:
            for connection, nanoseconds, data in self._reader.messages(connections):
                yield connection, nanoseconds, deserialize_message(bytes(data), KINDS[connection.msgtype])
        except Exception as error:  # each storage, and the middleware, has its own for bytes that are damaged
            topics = ", ".join(connection.topic for connection in connections)
            raise BagError(
                f"bag {self._folder} is damaged: a message on {topics} cannot be read "
                f"({type(error).__name__}: {error}); copy or record it again"
            ) from error

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


KINDS = {type_name(kind): kind for kind in TOPICS.values()}


def _typestore() -> Typestore:
    """The common messages and this package's own, registered from their text."""
    store = get_typestore(Stores.ROS2_KILTED)
    folder = share_folder() / "msg"
    for kind in (DecodeStats, EndEffectorCommand, EpisodeStatus):
        name = type_name(kind)
        store.register(get_types_from_msg((folder / f"{kind.__name__}.msg").read_text(), name))
    return store
