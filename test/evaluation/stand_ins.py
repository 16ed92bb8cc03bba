"""Rigs that evaluation processes can import: one without a simulator, one with LIBERO and short episodes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fake_environment import FakeEnvironment
from numpy.typing import NDArray

from specvla_ros.errors import DecodeError
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.evaluation.rollout import Environment, EpisodeResult
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.policy import Action, Policy, expand_thresholds
from specvla_ros.sim.libero import Frame, LiberoEnvironment, Task

SHORT = 3
DELAYS = {"none": 0.02, "hold": 0.005, "linear": 0.01}
"""Seconds that an action takes with each draft."""


class FakeScenesRig(Rig):
    """Three tasks of a fake scene, odd ones solved after SHORT steps, and the policies of the options."""

    def tasks(self, options: EvaluationOptions) -> list[Task]:
        return [task(options.suite, index) for index in range(3)]

    def create_environment(self, options: EvaluationOptions, task: Task) -> Environment:
        with (options.output / f"scenes-{os.getpid()}").open("a") as file:
            file.write(f"{task.index}\n")
        values = {"suite": task.suite, "task": task.index}
        return FakeEnvironment(values, success_step=SHORT if task.index % 2 else 0)


@dataclass(frozen=True)
class FakeRig(FakeScenesRig):
    """Fake policies too; `fault` is raised or ends the process."""

    fault: str = ""

    def load_policy(self, options: EvaluationOptions) -> Policy:
        if self.fault == "raise":
            raise DecodeError("the stand-in was told to fail")
        if self.fault == "exit":
            os._exit(7)
        return FakePolicy(expand_thresholds(options.threshold))

    def load_policies(self, several: Sequence[EvaluationOptions]) -> list[Policy]:
        return [FakePolicy(expand_thresholds(one.threshold), DELAYS[one.draft]) for one in several]


class ServedFaultRig(FakeRig):
    """The parent's policies fail: `fault` is raise, as the decoder does, or break, as nothing should."""

    def load_policies(self, several: Sequence[EvaluationOptions]) -> list[Policy]:
        return [FaultyPolicy(self.fault) for _ in several]


class FaultyPolicy(FakePolicy):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        kind = DecodeError if self._fault == "raise" else ValueError
        raise kind("the stand-in was told to fail")


class ShortRig(Rig):
    """LIBERO and the untrained model; every episode is called solved after SHORT steps."""

    def create_environment(self, options: EvaluationOptions, task: Task) -> Environment:
        return ShortEnvironment(task, image_size=options.image_size, fast_rendering=options.fast_rendering)


class ShortEnvironment(LiberoEnvironment):
    def step(self, values: NDArray[np.float64], render: bool = True) -> Frame:
        frame = super().step(values, render)
        return replace(frame, success=frame.step == SHORT)


def task(suite: str, index: int) -> Task:
    return Task(suite, index, f"do task {index}", Path("scene"), Path("states"))


def result(task: int = 0, episode: int = 0, success: bool = True, steps: int = 10) -> EpisodeResult:
    """Each action in two forwards, its one round with five accepted drafts."""
    return EpisodeResult(
        suite="libero_object",
        task=task,
        language=f"do task {task}",
        episode=episode,
        seed=0,
        success=success,
        steps=steps,
        actions=steps,
        steps_held=0,
        steps_without_command=0,
        forwards=2 * steps,
        accepted=(0, 0, 0, 0, 0, steps),
        position_accepts=(0, steps, steps, steps, steps, steps, 0),
        deviations=(1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0),
        milliseconds={"verify": (1.0, 2.0), "total": (3.0, 4.0)},
    )
