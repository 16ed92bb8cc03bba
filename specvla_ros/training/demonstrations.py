"""Demonstrations in LIBERO's own HDF5 layout: one file a task, one group an episode.

LIBERO's published files and the ones that `specvla train demos` writes go through the same reader. Ours carry two
things more: `obs/landmarks`, where gripper, object and destination are, and the seed of each episode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import DataError
from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.sim.libero import Task

try:
    import h5py
except ImportError as error:
    raise DataError(f"demonstrations are read and written by h5py ({error}): pip install h5py") from error

LANDMARKS = ("gripper", "object", "destination")
NO_MOTION = 1e-4
"""OpenVLA's LIBERO data leaves out steps whose six motions have a smaller norm and whose gripper command stays."""
FILE_SUFFIX = "_demo.hdf5"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One successful episode of T steps.

    Attributes:
        language: the instruction, in lower case.
        images: (T, H, W, 3) uint8 RGB, upside down as LIBERO renders and records them; what was seen before a step.
        actions: (T, 7) float64 in LIBERO's convention: motion in the controller's units, gripper -1 open, 1 closed.
        states: (T, n) float64, the simulator's whole state before each step.
        end_effector: (T, 6) float64: position [m] and axis-angle rotation [rad] of the gripper.
        gripper_opening: (T,) float64, metres between the fingers.
        landmarks: (T, 3, 5) float32 for `LANDMARKS`: x, y, z in the world [m], then column and row in the upright
            image, as fractions of its width and height; None in LIBERO's own files.
        seed: of the episode's start; None in LIBERO's own files.
    """

    language: str
    images: NDArray[np.uint8]
    actions: NDArray[np.float64]
    states: NDArray[np.float64]
    end_effector: NDArray[np.float64]
    gripper_opening: NDArray[np.float64]
    landmarks: NDArray[np.float32] | None = None
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def moving_steps(self) -> NDArray[np.int64]:
        """Indices of the steps that are not no-ops."""
        return moving_steps(self.actions)

    def policy_actions(self) -> NDArray[np.float64]:
        """(T, 7) actions as a policy gives them: the gripper 0 closed .. 1 open (OpenVLA's data preparation)."""
        return np.column_stack([self.actions[:, :6], 1.0 - np.clip(self.actions[:, 6], 0.0, 1.0)])


def moving_steps(actions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the (T, 7) actions that are not no-ops, as OpenVLA's LIBERO data keeps them.

    A still step counts when its gripper command differs from that of the last step kept.
    """
    moving = np.linalg.norm(actions[:, :6], axis=1) >= NO_MOTION
    kept: list[int] = []
    for step, moves in enumerate(moving):
        if moves or (kept and actions[step, 6] != actions[kept[-1], 6]):
            kept.append(step)
    return np.array(kept, dtype=np.int64)


def demonstration_file(directory: Path, task: Task) -> Path:
    """The file of a task, named as LIBERO names it: by the scene file."""
    return directory / task.suite / f"{task.scene_file.stem}{FILE_SUFFIX}"


def append_demonstration(path: Path, task: Task, demonstration: Demonstration) -> None:
    """Add an episode to a task's file, which is flushed and closed when this returns.

    The group's `num_samples` comes last: a group without it was cut short, is not read, and is written anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        data = file.require_group("data")
        data.attrs["bddl_file_name"] = task.scene_file.name
        data.attrs["problem_info"] = json.dumps({"language_instruction": [demonstration.language]})
        name = f"demo_{len(_complete(data))}"
        if name in data:
            del data[name]
        group = data.create_group(name)
        _write_arrays(group, demonstration)
        group.attrs["init_state"] = demonstration.states[0]
        group.attrs["seed"] = -1 if demonstration.seed is None else demonstration.seed
        group.attrs["num_samples"] = len(demonstration)
        complete = _complete_episodes(data)
        data.attrs["num_demos"] = len(complete)
        data.attrs["total"] = sum(int(group.attrs["num_samples"]) for group in complete)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a demonstration file holds: complete episodes, their steps, and the seeds that were tried.

    LIBERO's own files know no seeds.
    """

    episodes: int = 0
    steps: int = 0
    seeds: frozenset[int] = frozenset()
    failed_seeds: frozenset[int] = frozenset()


def read_record(path: Path) -> Recorded:
    """What is recorded in a file; nothing when it does not exist.

    Raises:
        DataError: the file is not one in LIBERO's layout.
    """
    if not path.is_file():
        return Recorded()
    with _open(path) as file:
        data = _data(file, path)
        groups = _complete_episodes(data)
        seeds = (int(group.attrs.get("seed", -1)) for group in groups)
        return Recorded(
            episodes=len(groups),
            steps=sum(int(group.attrs["num_samples"]) for group in groups),
            seeds=frozenset(seed for seed in seeds if seed >= 0),
            failed_seeds=frozenset(int(seed) for seed in data.attrs.get("failed_seeds", [])),
        )


def record_failure(path: Path, task: Task, seed: int) -> None:
    """Remember that the expert did not solve the episode of this seed, so that it is not tried again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        data = file.require_group("data")
        data.attrs["bddl_file_name"] = task.scene_file.name
        data.attrs["failed_seeds"] = [*data.attrs.get("failed_seeds", []), seed]


def demonstration_files(directories: Sequence[Path]) -> list[Path]:
    """Every demonstration file under the folders.

    Raises:
        DataError: there is none.
    """
    files = sorted(path for directory in directories for path in directory.rglob("*.hdf5"))
    if not files:
        names = ", ".join(map(str, directories))
        raise DataError(f"no .hdf5 demonstrations under {names}; make them with: specvla train demos")
    return files


def read_demonstrations(path: Path) -> Iterator[Demonstration]:
    """The complete episodes of one file, in the order they were recorded.

    Raises:
        DataError: the file is not one in LIBERO's layout; the message names what is missing.
    """
    with _open(path) as file:
        data, language = _data(file, path), instruction_of(path)
        for name in _complete(data):
            try:
                episode = _read(data[name], language)
            except KeyError as error:
                raise DataError(f"{path}: {name} is incomplete: {error}; expected LIBERO's layout") from error
            count, shape = len(episode.images), episode.actions.shape
            if shape != (count, ACTION_LENGTH):
                raise DataError(
                    f"{path}: {name} has {count} images and actions of shape {shape}; expected {(count, ACTION_LENGTH)}"
                )
            yield episode


def replace_actions(path: Path, actions_of: Callable[[int, NDArray[np.float64]], NDArray[np.float64]]) -> int:
    """Give the complete episodes of one file other actions; how many steps they have.

    Args:
        actions_of: from an episode's seed and its (T, n) states its (T, 7) actions in LIBERO's convention.

    Raises:
        DataError: the file is not one in LIBERO's layout, or an episode has no seed.
    """
    steps = 0
    with _open(path, "r+") as file:
        for group in _complete_episodes(_data(file, path)):
            seed = int(group.attrs.get("seed", -1))
            if seed < 0:
                raise DataError(f"{path}: {group.name} has no seed, so its scene cannot be built again; record it anew")
            group["actions"][...] = actions_of(seed, group["states"][:])
            steps += len(group["actions"])
    return steps


def count_moving_steps(path: Path) -> int:
    """Those of all complete episodes of one file, without reading its images."""
    with _open(path) as file:
        data = _data(file, path)
        return sum(len(moving_steps(group["actions"][:])) for group in _complete_episodes(data))


def instruction_of(path: Path) -> str:
    """The instruction that OpenVLA's evaluation gives: from the file's name, less its scene, in lower case."""
    words = re.sub(r"^[A-Z][A-Z0-9_]*SCENE\d+_", "", path.name.removesuffix(FILE_SUFFIX).removesuffix(".hdf5"))
    return words.replace("_", " ").lower()


def _open(path: Path, mode: str = "r") -> h5py.File:
    try:
        return h5py.File(path, mode)
    except OSError as error:
        raise DataError(f"{path} is no HDF5 file or is cut short ({error}); record or copy it again") from error


def _data(file: h5py.File, path: Path) -> h5py.Group:
    if "data" not in file:
        raise DataError(f"{path}: no group 'data'; expected LIBERO's demonstration layout")
    return file["data"]


def _complete_episodes(data: h5py.Group) -> list[h5py.Group]:
    return [data[name] for name in _complete(data)]


def _complete(data: h5py.Group) -> list[str]:
    """Names of the episodes that were written to their end, by number."""
    names = [name for name in data if "num_samples" in data[name].attrs]
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def _write_arrays(group: h5py.Group, demonstration: Demonstration) -> None:
    length = len(demonstration)
    last = np.arange(length) == length - 1
    group["actions"] = demonstration.actions
    group["states"] = demonstration.states
    group["dones"] = last.astype(np.uint8)
    group["rewards"] = last.astype(np.uint8)
    images = demonstration.images
    # One frame a chunk, so that a step is read without its neighbours; lzf costs a third of gzip's time.
    group.create_dataset("obs/agentview_rgb", data=images, chunks=(1, *images.shape[1:]), compression="lzf")
    group["obs/ee_pos"] = demonstration.end_effector[:, :3]
    group["obs/ee_ori"] = demonstration.end_effector[:, 3:]
    half = demonstration.gripper_opening / 2.0
    group["obs/gripper_states"] = np.column_stack([half, -half])
    if demonstration.landmarks is not None:
        group["obs/landmarks"] = demonstration.landmarks


def _read(group: h5py.Group, language: str) -> Demonstration:
    obs = group["obs"]
    seed = int(group.attrs.get("seed", -1))
    return Demonstration(
        language=language,
        images=obs["agentview_rgb"][:],
        actions=group["actions"][:],
        states=group["states"][:],
        end_effector=np.column_stack([obs["ee_pos"][:], obs["ee_ori"][:]]),
        gripper_opening=obs["gripper_states"][:, 0] - obs["gripper_states"][:, 1],
        landmarks=obs["landmarks"][:] if "landmarks" in obs else None,
        seed=None if seed < 0 else seed,
    )
