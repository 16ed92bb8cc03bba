"""When and on what an evaluation was begun and gone on with, beside its episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.json_file import replace_json

HISTORY = "history.json"


@dataclass(frozen=True, slots=True)
class Session:
    """One time that episodes were added.

    Attributes:
        finished: episodes that were there before.
        machine: see `machine_facts`.
        latency_source: of an emulated delay, the benchmark that it was taken from; empty where it was given.
    """

    finished: int
    machine: Mapping[str, str]
    latency_source: str = ""


def add_session(folder: Path, session: Session) -> None:
    """Keep one more.

    Raises:
        ConfigurationError: the file that is there cannot be read.
    """
    replace_json(folder / HISTORY, [asdict(one) for one in [*read_sessions(folder), session]])


def read_sessions(folder: Path) -> list[Session]:
    """The oldest first; none where nothing is told.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    path = folder / HISTORY
    try:
        return [Session(**one) for one in json.loads(path.read_text())] if path.is_file() else []
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}); delete it, and the report will not say what its episodes were made on"
        ) from error
