"""Runs the episodes that are not finished yet and keeps every result."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

from rich.console import Console

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.episode_file import EpisodeFile
from specvla_ros.evaluation.history import Session, add_session
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.evaluation.schedule import Job
from specvla_ros.evaluation.worker import play_all
from specvla_ros.machine import machine_facts
from specvla_ros.progress import pieces_bar
from specvla_ros.sim.libero import Task, require_tasks

INITIAL_STATES = 50
"""Fixed initial states of every LIBERO task."""


def evaluate(options: EvaluationOptions, console: Console, rig: Rig | None = None) -> list[EpisodeResult]:
    """Results of all the episodes that the options ask for, by task and episode; those on the disk are not run again.

    Raises:
        ConfigurationError: no such suite, task or initial state, or the output folder holds another evaluation.
        CheckpointError: the checkpoint or the draft cannot be used.
        SimulationError: LIBERO is not installed, cannot render, or a process died.
    """
    rig = rig or Rig()
    tasks = chosen_tasks(rig.tasks(options), options)
    wanted = [Job(task.index, episode) for task in tasks for episode in range(options.trials)]
    with EpisodeFile(options.output, options.conditions()) as file:
        finished = {Job(result.task, result.episode): result for result in file.results}
        results = {job: finished[job] for job in wanted if job in finished}
        if results:
            console.print(
                f"{len(results)} of {len(wanted)} episodes are finished already in {file.path}", soft_wrap=True
            )
        left = [job for job in wanted if job not in results]
        if left:
            add_session(options.output, Session(len(finished), _machine(options), options.latency_source))
        with pieces_bar(console) as progress, closing(_play(rig, options, tasks, left)) as played:
            description = _success_rate(list(results.values())) if results else "the first episodes"
            bar = progress.add_task(description, total=len(wanted), completed=len(results))
            try:
                for result in played:
                    file.append(result)
                    results[Job(result.task, result.episode)] = result
                    progress.update(bar, completed=len(results), description=_success_rate(list(results.values())))
            except KeyboardInterrupt:
                console.print(
                    f"interrupted: {len(results)} of {len(wanted)} episodes are finished and kept in {file.path}; the "
                    "same command goes on with the others",
                    soft_wrap=True,
                )
                raise
    return [results[job] for job in wanted]


def _machine(options: EvaluationOptions) -> dict[str, str]:
    """This one, with the GPU that decodes where it has several."""
    from specvla_ros.runtime import current, select_device

    with current(select_device(options.device)):
        return machine_facts()


def _play(
    rig: Rig, options: EvaluationOptions, tasks: list[Task], jobs: list[Job]
) -> Generator[EpisodeResult, None, None]:
    """Results as they come."""
    if not options.ros:
        return play_all(rig, options, tasks, jobs)
    from specvla_ros.evaluation.through_nodes import play_through_nodes  # needs ROS

    return play_through_nodes(options, tasks, jobs)


def chosen_tasks(tasks: list[Task], options: EvaluationOptions) -> list[Task]:
    """Those of the suite that the options ask for.

    Raises:
        ConfigurationError: no such task or initial state.
    """
    require_tasks(options.tasks, options.suite, tasks)
    if options.trials > INITIAL_STATES:
        raise ConfigurationError(f"trials is {options.trials}; a task has {INITIAL_STATES} initial states")
    return [task for task in tasks if not options.tasks or task.index in options.tasks]


def _success_rate(results: list[EpisodeResult]) -> str:
    solved = sum(result.success for result in results)
    return f"{solved} of {len(results)} solved, {solved / len(results):.0%}"
