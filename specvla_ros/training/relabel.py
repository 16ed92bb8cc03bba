"""`specvla train relabel`: recorded demonstrations get the actions that today's expert would take."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from specvla_ros.errors import DataError
from specvla_ros.processes import end_with_parent, single_threaded_children
from specvla_ros.sim.experts import PickAndPlaceExpert
from specvla_ros.sim.libero import LiberoEnvironment, Task, list_tasks, to_libero_action
from specvla_ros.training.demonstrations import complete_episodes, demonstration_file, demonstration_files

IMAGE_SIZE = 16
"""Pixels; no image is looked at."""


def relabel(directories: Sequence[Path], workers: int) -> int:
    """Replace the actions in every file under `directories`, by what the simulator says of the recorded states.

    Images stay: a change of the expert then needs no new rendering. Files are done one by one, so that one that was
    interrupted is simply done again.

    Returns:
        How many steps there are.

    Raises:
        DataError: a file of no task that LIBERO knows, or without the seed of each episode's start.
    """
    files = demonstration_files(directories)
    tasks = [_task_of(path) for path in files]
    pool = ProcessPoolExecutor(min(workers, len(files)), mp_context=get_context("spawn"), initializer=end_with_parent)
    with single_threaded_children(), pool:
        return sum(track(pool.map(_relabel_file, files, tasks), total=len(files), description="relabelling"))


def expert_actions(environment: LiberoEnvironment, seed: int, states: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 7) actions in LIBERO's convention, for the (T, n) states of an episode with this random start."""
    environment.reset_randomly(seed)
    expert = PickAndPlaceExpert(environment)
    return np.stack([to_libero_action(expert.act(environment.restore(state))) for state in states])


def _task_of(path: Path) -> Task:
    for task in list_tasks(path.parent.name):
        if demonstration_file(path.parent.parent, task) == path:
            return task
    raise DataError(f"{path} is of no task in {path.parent.name}; expected the name that specvla train demos gives")


def _relabel_file(path: Path, task: Task) -> int:
    environment = LiberoEnvironment(task, image_size=IMAGE_SIZE, fast_rendering=True)
    with closing(environment), h5py.File(path, "r+") as file:
        return sum(_relabel_episode(environment, group, path) for group in complete_episodes(file["data"]))


def _relabel_episode(environment: LiberoEnvironment, group: h5py.Group, path: Path) -> int:
    seed = int(group.attrs.get("seed", -1))
    if seed < 0:
        raise DataError(f"{path}: {group.name} has no seed, so its scene cannot be built again; record it anew")
    actions = expert_actions(environment, seed, group["states"][:])
    group["actions"][...] = actions
    return len(actions)
