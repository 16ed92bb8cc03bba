"""`specvla train demos`: scripted experts act in LIBERO and what they did is written down."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from specvla_ros.errors import SimulationError, SpecVLAError
from specvla_ros.processes import end_with_parent, single_threaded_children
from specvla_ros.progress import pieces_bar
from specvla_ros.sim.experts import PickAndPlaceExpert, can_solve
from specvla_ros.sim.libero import (
    STEP_LIMITS,
    Frame,
    LiberoEnvironment,
    Task,
    list_tasks,
    require_tasks,
    to_libero_action,
)
from specvla_ros.training.collect_options import CollectOptions, claim_output
from specvla_ros.training.demonstrations import (
    Demonstration,
    append_demonstration,
    demonstration_file,
    read_record,
    record_failure,
)
from specvla_ros.training.disturbance import Disturbance, Interference, Obedience, PolicyDriver
from specvla_ros.training.held_signals import held_signals

FIRST_SEED, FIRST_CORRECTED_SEED = 1_000_000, 2_000_000
"""Evaluation seeds its scenes with small numbers; demonstrations never use one below these. A policy that is corrected
(DAgger) meets other starts than it was trained on."""
MOST_TRIES = 3
"""An expert that needs more tries for each success than this has failed at its task."""


@dataclass(slots=True)
class TaskOutcome:
    """How the expert of one task fared.

    Attributes:
        refused: why there is no expert; empty where there is one.
    """

    task: int
    language: str
    recorded: int = 0
    failed: int = 0
    steps: int = 0
    refused: str = ""


def collect(options: CollectOptions, console: Console) -> list[TaskOutcome]:
    """Record demonstrations of every task in parallel; what is already there counts.

    Raises:
        SimulationError: a worker died, or could not write what it recorded.
        ConfigurationError: no such suite or task, or the output holds recordings of another kind.
        OSError: the output cannot be made.
    """
    tasks = list_tasks(options.suite)
    require_tasks(options.tasks or (), options.suite, tasks)
    chosen = [task for task in tasks if options.tasks is None or task.index in options.tasks]
    outcomes = {task.index: _outcome_so_far(options, task) for task in chosen}
    claim_output(options)  # else the first episode would be played for nothing
    context = multiprocessing.get_context("spawn")
    jobs: Queue[Task] = context.Queue()
    news: Queue[Any] = context.Queue()
    for task in chosen:
        jobs.put(task)
    workers = [
        context.Process(target=_work, args=(options, jobs, news), daemon=True)
        for _ in range(min(options.workers, len(chosen)))
    ]
    with single_threaded_children():
        for worker in workers:
            worker.start()
    try:
        _watch(options, outcomes, workers, news, console)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    return list(outcomes.values())


def outcome_table(options: CollectOptions, outcomes: Sequence[TaskOutcome]) -> Table:
    """One row a task; tasks without an expert, or whose expert failed, are listed with the rest."""
    table = Table("task", "instruction", "recorded", "failed tries", "mean steps", "MB", title=options.suite)
    files = {task.index: demonstration_file(options.output, task) for task in list_tasks(options.suite)}
    for outcome in outcomes:
        path = files[outcome.task]
        megabytes = path.stat().st_size / 1e6 if path.is_file() else 0.0
        mean = f"{outcome.steps / outcome.recorded:.0f}" if outcome.recorded else "-"
        recorded = str(outcome.recorded) if not outcome.refused else f"[yellow]none[/]: {outcome.refused}"
        table.add_row(str(outcome.task), outcome.language, recorded, str(outcome.failed), mean, f"{megabytes:.0f}")
    return table


def record_episode(
    environment: LiberoEnvironment, seed: int, max_steps: int, interference: Interference
) -> Demonstration | None:
    """One episode from a random start; None when the expert does not solve it in time.

    What is recorded is what the expert would do, not what the interference made of it: the data shows how to come back.
    """
    frame = environment.reset_randomly(seed)
    expert = PickAndPlaceExpert(environment)
    record: dict[str, list[Any]] = {name: [] for name in ("images", "actions", "states", "hands", "openings", "marks")}
    while not frame.success:
        if frame.step >= max_steps:
            return None
        values = expert.act(frame)
        _note(record, environment, expert, frame, values)
        frame = environment.step(interference.apply(frame, values))
    return Demonstration(
        language=environment.task.language,
        images=np.stack(record["images"]),
        actions=np.stack(record["actions"]),
        states=np.stack(record["states"]),
        end_effector=np.stack(record["hands"]),
        gripper_opening=np.array(record["openings"]),
        landmarks=np.stack(record["marks"]).astype(np.float32),
        seed=seed,
    )


def _note(
    record: dict[str, list[Any]],
    environment: LiberoEnvironment,
    expert: PickAndPlaceExpert,
    frame: Frame,
    values: NDArray[np.float64],
) -> None:
    from scipy.spatial.transform import Rotation

    assert frame.end_effector is not None
    record["images"].append(frame.image)
    record["actions"].append(to_libero_action(values))
    record["states"].append(environment.state())
    rotation = Rotation.from_quat(frame.end_effector.quaternion).as_rotvec()
    record["hands"].append(np.concatenate([frame.end_effector.position, rotation]))
    record["openings"].append(frame.end_effector.opening)
    points = expert.landmarks(frame)
    record["marks"].append(np.column_stack([points, [environment.image_point(point) for point in points]]))


def _outcome_so_far(options: CollectOptions, task: Task) -> TaskOutcome:
    record = read_record(demonstration_file(options.output, task))
    return TaskOutcome(task.index, task.language, record.episodes, len(record.failed_seeds), record.steps)


def _watch(
    options: CollectOptions,
    outcomes: dict[int, TaskOutcome],
    workers: Sequence[Any],
    news: Queue[Any],
    console: Console,
) -> None:
    """Show what the workers report until each has ended."""
    with pieces_bar(console) as progress:
        total = options.demonstrations * len(outcomes)
        bar = progress.add_task("demonstrations", total=total, completed=sum(o.recorded for o in outcomes.values()))
        working = len(workers)
        while working:
            try:
                kind, index, value = news.get(timeout=1.0)
            except queue.Empty:
                _require_alive(workers)
                continue
            if kind == "done":
                working -= 1
            elif kind == "error":
                raise SimulationError(value)
            elif kind == "refused":
                outcomes[index].refused = value
            elif value is None:
                outcomes[index].failed += 1
            else:
                outcomes[index].recorded += 1
                outcomes[index].steps += value
                progress.advance(bar)


def _require_alive(workers: Sequence[Any]) -> None:
    for worker in workers:
        if worker.exitcode not in (None, 0):
            raise SimulationError(
                f"a simulator process ended with code {worker.exitcode}; start again to go on where it stopped, with "
                "fewer workers if memory ran out"
            )


def _work(options: CollectOptions, jobs: Queue[Task], news: Queue[Any]) -> None:
    """A worker process: one task after another, each with a scene and a file of its own."""
    end_with_parent()
    try:
        interfere = _interference(options)
        while True:
            try:
                task = jobs.get(timeout=1.0)
            except queue.Empty:
                break
            for kind, value in _collect_task(options, task, interfere):
                news.put((kind, task.index, value))
        news.put(("done", 0, None))
    except (SpecVLAError, OSError) as error:  # a disk that is full, a file that is not HDF5
        news.put(("error", 0, str(error)))
    news.close()
    news.join_thread()
    # robosuite's render contexts print errors when the interpreter takes them down; nothing is left to do here.
    os._exit(0)


def _interference(options: CollectOptions) -> Callable[[Task, int], Interference]:
    """What makes each episode's interference, from its task and seed."""
    if options.checkpoint:
        import torch

        from specvla_ros.runtime import load_policy

        torch.set_num_threads(1)
        policy = load_policy(options.checkpoint, "hold")
        return lambda task, seed: PolicyDriver(policy, task.language, seed)
    if options.disturbed:
        return lambda task, seed: Disturbance(seed)
    return lambda task, seed: Obedience()


def _collect_task(
    options: CollectOptions, task: Task, interfere: Callable[[Task, int], Interference]
) -> Iterator[tuple[str, Any]]:
    """Record until there are enough, or the expert has failed too often; yield what became of each try."""
    path = demonstration_file(options.output, task)
    record = read_record(path)
    if record.episodes >= options.demonstrations:
        return
    environment = LiberoEnvironment(task, image_size=options.image_size, fast_rendering=options.fast_rendering)
    try:
        if not can_solve(environment.goal):
            yield "refused", f"no expert for {environment.goal[0][0]}"
            return
        done, tries = record.episodes, record.episodes + len(record.failed_seeds)
        # Corrections take their time: an episode with a policy at the wheel may last twice as long.
        limit = STEP_LIMITS[task.suite] * (2 if options.checkpoint else 1)
        first = (FIRST_CORRECTED_SEED if options.checkpoint else FIRST_SEED) + options.skip
        seed = max([first - 1, *record.seeds, *record.failed_seeds]) + 1
        while done < options.demonstrations and tries < MOST_TRIES * options.demonstrations:
            demonstration = record_episode(environment, seed, limit, interfere(task, seed))
            with held_signals():  # a process that ends while it writes may leave a file that nobody can open
                if demonstration is None:
                    record_failure(path, task, seed)
                else:
                    append_demonstration(path, task, demonstration)
            done += demonstration is not None
            yield "tried", None if demonstration is None else len(demonstration)
            seed, tries = seed + 1, tries + 1
    finally:
        environment.close()
