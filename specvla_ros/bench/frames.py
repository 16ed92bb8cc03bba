"""The images that a benchmark decodes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specvla_ros.errors import DataError, SimulationError
from specvla_ros.evaluation.speedup import record_frames
from specvla_ros.policy import Policy
from specvla_ros.sim.libero import RGB, LiberoEnvironment, find_task
from specvla_ros.vla.images import require_rgb

SUITE, TASK, IMAGE_SIZE = "libero_spatial", 0, 256
INSTRUCTION = "pick up the black bowl between the plate and the ramekin and place it on the plate"
"""Of that task."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Images of one episode in its order, and where they are from.

    Attributes:
        images: (H, W, 3) uint8 RGB each, as a policy is given them.
    """

    images: list[RGB]
    instruction: str
    source: str


def read_frames(path: Path, count: int) -> Frames:
    """The first images of a recording, at most `count`.

    Args:
        path: LIBERO's .hdf5 demonstrations, of which the first episode is taken; or an .npz with `images`,
            (N, H, W, 3) uint8 RGB, and `instruction`.

    Raises:
        DataError: there are no two images of that kind.
        ImageError: they are not uint8 RGB.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file; expected LIBERO's .hdf5 demonstrations or an .npz with images")
    images, instruction = _read_npz(path) if path.suffix == ".npz" else _read_demonstration(path)
    if len(images) < 2:
        raise DataError(f"{path} holds {len(images)} images; expected at least 2")
    require_rgb(images[0])
    return Frames(images[:count], instruction, f"recorded: {path.name}")


def write_frames(frames: Frames, path: Path) -> None:
    """What `read_frames` reads, for a machine without LIBERO.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, images=np.stack(frames.images), instruction=np.array(frames.instruction))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error


def render_frames(policy: Policy, count: int, fast_rendering: bool) -> Frames:
    """An episode that the policy drives; noise where LIBERO is not installed or cannot render."""
    try:
        task = find_task(SUITE, TASK)
        with closing(LiberoEnvironment(task, image_size=IMAGE_SIZE, fast_rendering=fast_rendering)) as environment:
            images = record_frames(policy, environment, task, count)
    except SimulationError as error:
        return noise_frames(count, str(error))
    return Frames(images, task.language, f"rendered: {SUITE} task {TASK}, {IMAGE_SIZE} x {IMAGE_SIZE}")


def noise_frames(count: int, reason: str) -> Frames:
    """Images that resemble nothing and each other not at all, so that no draft can be judged by them."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8) for _ in range(count)]
    return Frames(images, INSTRUCTION, f"noise, which says nothing about accepted lengths, because {reason}")


def _read_npz(path: Path) -> tuple[list[RGB], str]:
    try:
        with np.load(path) as arrays:
            return list(arrays["images"]), str(arrays["instruction"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} has no images and instruction ({error}); expected an .npz with both") from error


def _read_demonstration(path: Path) -> tuple[list[RGB], str]:
    try:
        from specvla_ros.training.demonstrations import Demonstration, read_demonstrations
    except ImportError as error:
        raise DataError(f"{path} needs h5py: pip install h5py") from error
    episodes: Iterator[Demonstration] = read_demonstrations(path)
    first = next(episodes, None)
    if first is None:
        raise DataError(f"{path} holds no complete episode; record or copy it again")
    return list(first.images), first.language
