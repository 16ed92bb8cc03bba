"""Results of episodes on the disk, one JSON line each, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.json_file import replace_json
from specvla_ros.evaluation.rollout import EpisodeResult

EPISODES, OPTIONS = "episodes.jsonl", "options.json"


class EpisodeFile:
    """Reads what is there and appends to it; one evaluation at a time.

    Args:
        folder: made when it does not exist.
        conditions: what the results depend on; must be what the folder's earlier results were made under, but for the
            checkpoint's place: its fingerprint says whether it is the same.

    Raises:
        ConfigurationError: other conditions, another evaluation is writing there, a line is no episode's result, or
            the file system has no locks.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / EPISODES
        self._file = self.path.open("a+b")
        try:
            self._lock()
            self.results = self._read()
            if self.results and (folder / OPTIONS).exists():
                _require_same(folder / OPTIONS, conditions)
            else:  # an attempt that did not get as far as an episode leaves nothing to go on with
                replace_json(folder / OPTIONS, conditions)
        except ConfigurationError:
            self._file.close()
            raise

    def append(self, result: EpisodeResult) -> None:
        """Write one more; it is on the file system, and survives this process, when this returns."""
        self._file.write(json.dumps(result.to_dict()).encode() + b"\n")
        self._file.flush()
        self.results.append(result)

    def __enter__(self) -> EpisodeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another evaluation is writing to {self.path}; wait for it or choose another output folder"
            ) from error
        except OSError as error:  # a cluster's network folders often have no locks
            raise ConfigurationError(
                f"{self.path} cannot be locked against a second evaluation ({error.strerror}); choose an output folder "
                "on another file system, such as a local disk"
            ) from error

    def _read(self) -> list[EpisodeResult]:
        self._file.seek(0)
        *lines, unfinished = self._file.read().split(b"\n")
        if unfinished:
            # The process was killed while it wrote; the next line must not be joined to this.
            self._file.truncate(self.path.stat().st_size - len(unfinished))
        return _parse(lines, self.path)


def read_results(path: Path) -> list[EpisodeResult]:
    """The finished episodes, while an evaluation may be writing more; none where there is no file.

    Raises:
        ConfigurationError: a line is no episode's result.
    """
    return _parse(path.read_bytes().split(b"\n")[:-1], path) if path.is_file() else []


def _parse(lines: list[bytes], path: Path) -> list[EpisodeResult]:
    results: list[EpisodeResult] = []
    for number, line in enumerate(lines, start=1):
        try:
            results.append(EpisodeResult.from_dict(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"line {number} of {path} is not an episode's result ({error}); delete the line to run it again"
            ) from error
    return results


def _require_same(path: Path, conditions: Mapping[str, Any]) -> None:
    """Compare with the conditions saved at `path`."""
    try:
        saved = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); choose another output folder") from error
    differing = [
        f"{name} is {saved.get(name)!r} there and {conditions.get(name)!r} now"
        for name in {**saved, **conditions}
        if name != "checkpoint" and saved.get(name) != conditions.get(name)
    ]
    if differing:
        raise ConfigurationError(
            f"{path.parent} holds episodes of another evaluation: {'; '.join(differing)}; choose another output "
            "folder, or delete this one"
        )
