"""`specvla train relabel`: recorded demonstrations get the actions that today's expert would take."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from specvla_ros.errors import DataError
from specvla_ros.processes import process_pool
from specvla_ros.sim.experts import PickAndPlaceExpert
from specvla_ros.sim.libero import LiberoEnvironment, Task, list_tasks, to_libero_action
from specvla_ros.training.demonstrations import demonstration_file, demonstration_files, replace_actions

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
    with process_pool(min(workers, len(files))) as pool:
        return sum(track(pool.map(_relabel_file, files, tasks), total=len(files), description="relabelling"))


def _task_of(path: Path) -> Task:
    for task in list_tasks(path.parent.name):
        if demonstration_file(path.parent.parent, task) == path:
            return task
    raise DataError(f"{path} is of no task in {path.parent.name}; expected the name that specvla train demos gives")


def _relabel_file(path: Path, task: Task) -> int:
    with closing(LiberoEnvironment(task, image_size=IMAGE_SIZE, fast_rendering=True)) as environment:
        return replace_actions(path, partial(_expert_actions, environment))


def _expert_actions(environment: LiberoEnvironment, seed: int, states: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 7) actions in LIBERO's convention, for the (T, n) states of an episode with this random start."""
    environment.reset_randomly(seed)
    expert = PickAndPlaceExpert(environment)
    return np.stack([to_libero_action(expert.act(environment.restore(state))) for state in states])
