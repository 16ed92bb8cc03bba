"""Processes that play episodes, each with a scene of its own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from specvla_ros.errors import SimulationError, SpecVLAError
from specvla_ros.evaluation.latency import parse_latency
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.evaluation.rollout import Environment, EpisodeResult, run_episode
from specvla_ros.evaluation.schedule import Job, Schedule
from specvla_ros.evaluation.served_policy import STOP_SECONDS, ServedPolicy, serving
from specvla_ros.policy import Policy, expand_thresholds
from specvla_ros.processes import end_with_parent
from specvla_ros.sim.libero import CONTROL_RATE, Frame, Task


def play_all(
    rig: Rig, options: EvaluationOptions, tasks: Sequence[Task], jobs: Sequence[Job]
) -> Generator[EpisodeResult, None, None]:
    """Results as they come, from as many processes as the options say; ends them whatever happens.

    Raises:
        SpecVLAError: what a worker met.
        SimulationError: a worker died.
    """
    schedule = Schedule(jobs)
    playing: dict[Connection, Job] = {}
    with _processes(rig, options, tasks, min(worker_count(options), len(jobs))) as processes:
        for connection in processes:
            job = schedule.next(None)
            assert job is not None, "there are no more workers than jobs"
            _hand(connection, job)
            playing[connection] = job
        while playing:
            for connection in [one for one in wait(list(playing)) if isinstance(one, Connection)]:
                yield _receive(connection, processes[connection])
                job = schedule.next(playing.pop(connection))
                _hand(connection, job)
                if job is not None:
                    playing[connection] = job
        for process in processes.values():
            process.join(STOP_SECONDS)


def worker_count(options: EvaluationOptions) -> int:
    """As many as wanted; one alone where the time that its commands take is measured in a policy it would share."""
    # What a policy takes while it also answers other scenes is longer, and would delay commands in simulated time.
    alone = options.one_policy and parse_latency(options.latency).own
    return 1 if alone else options.workers


@contextmanager
def _processes(
    rig: Rig, options: EvaluationOptions, tasks: Sequence[Task], count: int
) -> Iterator[dict[Connection, SpawnProcess]]:
    """So many workers, by the connections that jobs go out through and results come in; they end with the block."""
    # A forked process would share the parent's OpenGL and torch threads.
    context = multiprocessing.get_context("spawn")
    processes: dict[Connection, SpawnProcess] = {}
    served = [context.Pipe() for _ in range(count)] if options.one_policy else []
    policies = rig.load_policies([options] * count) if served else []
    with serving(policies, [ours for ours, _ in served]):
        try:
            for index in range(count):
                ours, theirs = context.Pipe()
                policy = served[index][1] if served else None
                process = context.Process(target=work, args=(theirs, policy, rig, options, tasks), daemon=True)
                process.start()
                for connection in filter(None, (theirs, policy)):
                    connection.close()  # so that the worker's death ends the connection
                processes[ours] = process
            yield processes
        finally:
            for process in processes.values():
                process.terminate()
                process.join(STOP_SECONDS)


def _hand(connection: Connection, job: Job | None) -> None:
    """Send a job; a worker that died is noticed where its answer is read."""
    with suppress(BrokenPipeError):
        connection.send(job)


def _receive(connection: Connection, process: SpawnProcess) -> EpisodeResult:
    try:
        answer = connection.recv()
    except (EOFError, ConnectionResetError) as error:
        process.join(STOP_SECONDS)
        raise SimulationError(
            f"an evaluation process ended with exit code {process.exitcode}; its last words are above. Finished "
            "episodes are kept; when memory ran out, use fewer workers"
        ) from error
    if isinstance(answer, SpecVLAError):
        raise answer
    return answer


def work(
    connection: Connection, served: Connection | None, rig: Rig, options: EvaluationOptions, tasks: Sequence[Task]
) -> None:
    """A worker process: jobs in, results or one error out, until None comes or the parent is gone.

    Args:
        served: where the parent's policy answers; None for a policy of its own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    end_with_parent()  # its pipe would tell at the end of the episode only
    try:
        policy = ServedPolicy(served, expand_thresholds(options.threshold)) if served else rig.load_policy(options)
        with closing(Player(rig, options, tasks, policy)) as player:
            while (job := connection.recv()) is not None:
                connection.send(player.play(job))
    except SpecVLAError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


class Player:
    """A policy, and the scene of the last task it played.

    Images are rendered by the thread that plays: a scene's render context belongs to the thread that made it.
    """

    def __init__(self, rig: Rig, options: EvaluationOptions, tasks: Sequence[Task], policy: Policy) -> None:
        self._rig = rig
        self._options = options
        self._tasks = {task.index: task for task in tasks}
        self._policy = policy
        self._environment: Environment | None = None
        self._task: Task | None = None

    def play(self, job: Job) -> EpisodeResult:
        """One episode, filmed when it is one of the task's first."""
        task = self._tasks[job.task]
        environment = self._scene(task)
        play = partial(
            run_episode,
            self._policy,
            environment,
            task,
            job.episode,
            self._options.seed,
            self._options.max_steps or None,
            latency=parse_latency(self._options.latency),
            hold_time=self._options.hold_time,
        )
        if job.episode >= self._options.videos:
            return play()
        from specvla_ros.sim.video import VideoWriter

        film_file = self._options.film(task, job.episode)
        unfinished = film_file.with_name(f"unfinished_{film_file.name}")
        with VideoWriter(unfinished, CONTROL_RATE) as video:

            def film(frame: Frame) -> None:
                assert frame.image is not None
                state = "solved" if frame.success else f"step {frame.step}"
                video.write(frame.image, f"{task.language} | {state}")

            result = play(on_frame=film)
        unfinished.replace(film_file)  # an attempt that was broken off leaves no film of the episode
        return result

    def close(self) -> None:
        """Free the scene."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _scene(self, task: Task) -> Environment:
        if self._environment is None or self._task != task:
            self.close()  # first: two scenes would need twice the memory
            self._environment, self._task = self._rig.create_environment(self._options, task), task
        return self._environment
