"""Demonstrations as frames to train on: images prepared once, in one flat file that is mapped, never loaded."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rich.progress import track

from specvla_ros.errors import DataError
from specvla_ros.processes import process_pool, usable_cores
from specvla_ros.training.demonstrations import (
    LANDMARKS,
    count_moving_steps,
    demonstration_files,
    instruction_of,
    read_demonstrations,
)
from specvla_ros.training.disk import require_disk
from specvla_ros.training.held_out import is_held_out
from specvla_ros.vla.actions import ActionTokenizer, NormStats
from specvla_ros.vla.config import IMAGE_SIZE
from specvla_ros.vla.images import prepare_uncropped

IMAGES_FILE = "frames.npy"
INDEX_FILE = "frames.npz"
VERSION = 2
"""Changes whenever the same demonstrations would give other frames."""
GRIPPER_REACH = 3
"""Steps before and after a change of the gripper that count as near it."""
FRAME_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)


@dataclass(frozen=True, slots=True)
class FrameStore:
    """N training frames.

    Attributes:
        images: (N, 224, 224, 3) uint8, mapped from disk: prepared as LIBERO's evaluation does, but not cropped.
        actions: (N, 7) float64 as a policy gives them: gripper 0 closed .. 1 open.
        landmarks: (N, 3, 5) float32, see `Demonstration.landmarks`; NaN where the file has none.
        openings: (N,) float32, metres between the fingers.
        episodes: (N,) number of the episode.
        languages: (N,) index into `instructions`.
        validation: (N,) True in the episodes that are held out.
        near_gripper: (N,) True within three steps of a change of the gripper.
        instructions: the different instructions, sorted.
        sources: (episodes,) file and number of each episode, for people.
        suites: names of the folders that the files lie in, sorted.
    """

    images: NDArray[np.uint8]
    actions: NDArray[np.float64]
    landmarks: NDArray[np.float32]
    openings: NDArray[np.float32]
    episodes: NDArray[np.int64]
    languages: NDArray[np.int64]
    validation: NDArray[np.bool_]
    near_gripper: NDArray[np.bool_]
    instructions: list[str]
    sources: list[str]
    suites: list[str]

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def norm_stats_key(self) -> str:
        """The suite's name where there is but one, as OpenVLA names its fine-tunes' statistics."""
        return f"{self.suites[0]}_no_noops" if len(self.suites) == 1 else "libero_mixed_no_noops"

    def norm_stats(self) -> dict[str, Any]:
        """OpenVLA's statistics of the training actions, by key."""
        train = ~self.validation
        actions = self.actions[train]
        numbers = {
            "mean": actions.mean(axis=0),
            "std": actions.std(axis=0),
            "max": actions.max(axis=0),
            "min": actions.min(axis=0),
            "q01": np.quantile(actions, 0.01, axis=0),
            "q99": np.quantile(actions, 0.99, axis=0),
        }
        action: dict[str, Any] = {name: values.tolist() for name, values in numbers.items()}
        action["mask"] = [True] * 6 + [False]
        return {
            self.norm_stats_key: {
                "action": action,
                "num_trajectories": len(np.unique(self.episodes[train])),
                "num_transitions": len(actions),
            }
        }

    def tokens(self, vocabulary_size: int) -> NDArray[np.int64]:
        """(N, 7) action token ids."""
        stats = NormStats.from_dict(self.norm_stats()[self.norm_stats_key]["action"], "training data")
        values = stats.normalise(self.actions)
        return np.array(ActionTokenizer(vocabulary_size).encode(values.ravel()), dtype=np.int64).reshape(values.shape)


def load_frames(directories: Sequence[Path], cache: Path, *, workers: int | None = None) -> FrameStore:
    """The frames of every demonstration under `directories`; prepared on first use and kept in `cache`.

    Args:
        workers: processes that prepare them; one a core when None.

    Raises:
        DataError: no demonstrations, or none to train on.
        ConfigurationError: the disk is too small for their frames.
    """
    files = demonstration_files([directory.resolve() for directory in directories])
    fingerprint = _fingerprint(files)
    if _stored_fingerprint(cache) != fingerprint:
        _build(files, cache, fingerprint, workers or usable_cores())
    store = _open(cache)
    if store.validation.all():
        raise DataError(f"{len(store)} frames under {', '.join(map(str, directories))}: none to train on; record more")
    return store


def _fingerprint(files: list[Path]) -> str:
    """Changes with any file, and with the way frames are made."""
    facts = [VERSION, *([str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _stored_fingerprint(cache: Path) -> str | None:
    """That of the frames in the cache; None when there are none or they are incomplete.

    The index is written last, so that where it is the images are too.
    """
    if not (cache / INDEX_FILE).is_file() or not (cache / IMAGES_FILE).is_file():
        return None
    with np.load(cache / INDEX_FILE) as index:
        return str(index["fingerprint"])


def _build(files: list[Path], cache: Path, fingerprint: str, workers: int) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    # Another run may have the old images mapped: they are replaced, not overwritten.
    unfinished = cache / f".{IMAGES_FILE}.{os.getpid()}"
    with process_pool(min(workers, len(files))) as pool:
        sizes = list(track(pool.map(count_moving_steps, files), total=len(files), description="counting steps"))
        starts = [0, *itertools.accumulate(sizes)]
        if not starts[-1]:
            raise DataError(f"{files[0].parent} and {len(files) - 1} files more hold no complete episode; record some")
        # Where a mapped file finds no more room the system ends the process that writes.
        require_disk(cache, starts[-1] * math.prod(FRAME_SHAPE), "make room, or give fewer demonstrations")
        try:
            open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=(starts[-1], *FRAME_SHAPE))
            jobs = pool.map(_prepare_file, files, itertools.repeat(unfinished), starts[:-1])
            parts = list(track(jobs, total=len(files), description="preparing frames"))
            (cache / INDEX_FILE).unlink(missing_ok=True)
            os.replace(unfinished, cache / IMAGES_FILE)
        finally:
            unfinished.unlink(missing_ok=True)
    _write_index(cache, files, parts, fingerprint)


def _prepare_file(path: Path, images_file: Path, start: int) -> list[dict[str, NDArray[Any]]]:
    """Write a file's frames from row `start` on; return the index arrays of each of its episodes."""
    images = open_memmap(images_file, mode="r+")
    parts: list[dict[str, NDArray[Any]]] = []
    for number, episode in enumerate(read_demonstrations(path)):
        steps = episode.moving_steps()
        for row, step in enumerate(steps, start):
            images[row] = prepare_uncropped(episode.images[step])
        start += len(steps)
        landmarks = episode.landmarks
        if landmarks is None:
            landmarks = np.full((len(episode), len(LANDMARKS), 5), np.nan, dtype=np.float32)
        grippers = episode.actions[steps, 6]
        parts.append(
            {
                "actions": episode.policy_actions()[steps],
                "landmarks": landmarks[steps],
                "openings": episode.gripper_opening[steps].astype(np.float32),
                "validation": np.full(len(steps), is_held_out(number)),
                "near_gripper": _near_changes(grippers),
            }
        )
    images.flush()
    return parts


def _near_changes(grippers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(T,) True within `GRIPPER_REACH` steps of one whose command differs from the step before."""
    changed = np.flatnonzero(grippers[1:] != grippers[:-1]) + 1
    steps = np.arange(len(grippers))
    return (np.abs(steps[:, None] - changed[None, :]) <= GRIPPER_REACH).any(axis=1)


def _write_index(cache: Path, files: list[Path], parts: list[list[dict[str, NDArray[Any]]]], fingerprint: str) -> None:
    episodes = [
        (path, number, part) for path, rows in zip(files, parts, strict=True) for number, part in enumerate(rows)
    ]
    lengths = [len(part["actions"]) for _, _, part in episodes]
    instructions = sorted({instruction_of(path) for path, _, _ in episodes})
    arrays = {name: np.concatenate([part[name] for _, _, part in episodes]) for name in episodes[0][2]}
    arrays["episodes"] = np.repeat(np.arange(len(episodes)), lengths)
    arrays["languages"] = np.repeat([instructions.index(instruction_of(path)) for path, _, _ in episodes], lengths)
    unfinished = cache / f".{os.getpid()}-{INDEX_FILE}"
    np.savez(
        unfinished,
        allow_pickle=False,
        **arrays,
        instructions=np.array(instructions),
        sources=np.array([f"{path}: episode {number}" for path, number, _ in episodes]),
        suites=np.array(sorted({path.parent.name for path in files})),
        fingerprint=np.array(fingerprint),
    )
    os.replace(unfinished, cache / INDEX_FILE)


def _open(cache: Path) -> FrameStore:
    with np.load(cache / INDEX_FILE) as index:
        arrays = {name: index[name] for name in index.files}
    return FrameStore(
        images=np.load(cache / IMAGES_FILE, mmap_mode="r"),
        **{name: arrays[name] for name in ("actions", "landmarks", "openings", "episodes", "languages")},
        **{name: arrays[name] for name in ("validation", "near_gripper")},
        **{name: arrays[name].tolist() for name in ("instructions", "sources", "suites")},
    )
