"""One episode in this process: the scene waits for every action, or moves on in simulated real time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from specvla_ros.evaluation.latency import NO_LATENCY, Latency
from specvla_ros.evaluation.realtime import TimedPolicy
from specvla_ros.policy import ACTION_LENGTH, DecodeStats, Policy
from specvla_ros.sim.holding import HOLD_TIME
from specvla_ros.sim.libero import STEP_LIMITS, Frame, Task


class Environment(Protocol):
    """What an episode needs of `LiberoEnvironment`."""

    def reset(self, episode: int, seed: int) -> Frame: ...

    def step(self, values: NDArray[np.float64], render: bool = True) -> Frame: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How an episode ended and what decoding its actions cost.

    Attributes:
        task: index in the suite; `language` is its instruction.
        episode: index of the benchmark's fixed initial state; `seed` that of what the state does not hold.
        steps: control steps.
        actions: decoded; in lockstep as many as steps.
        steps_held: steps with a command older than the frame before; steps_without_command: those at rest, because the
            last command had expired. Both 0 in lockstep.
        forwards: target forwards, the prefills included.
        accepted: verification rounds by how many draft tokens they accepted: none first, ACTION_LENGTH - 2 last.
        position_accepts: (7) actions whose token at this position is an accepted draft, and not the target's own.
        deviations: (7) mean distance from the target's argmax by dimension, in bins.
        milliseconds: (median, 95th percentile) over the actions, by the decoder's phases and in `total`.
    """

    suite: str
    task: int
    language: str
    episode: int
    seed: int
    success: bool
    steps: int
    actions: int
    steps_held: int
    steps_without_command: int
    forwards: int
    accepted: tuple[int, ...]
    position_accepts: tuple[int, ...]
    deviations: tuple[float, ...]
    milliseconds: dict[str, tuple[float, float]]

    @property
    def rounds(self) -> int:
        """Verification rounds."""
        return sum(self.accepted)

    @property
    def tokens_per_forward(self) -> float:
        """The Spec-VLA paper's accept length."""
        return ACTION_LENGTH * self.actions / self.forwards

    @property
    def accepted_drafts(self) -> int:
        """Draft tokens accepted in the whole episode."""
        return sum(count * rounds for count, rounds in enumerate(self.accepted))

    @classmethod
    def of(
        cls,
        task: Task,
        episode: int,
        seed: int,
        success: bool,
        steps: int,
        stats: Sequence[DecodeStats],
        steps_held: int = 0,
        steps_without_command: int = 0,
    ) -> EpisodeResult:
        """Sum up the statistics of an episode's actions, at least one."""
        accepted = np.bincount([count for one in stats for count in one.accepted], minlength=ACTION_LENGTH - 1)
        positions = np.sum([accepted_positions(one.accepted) for one in stats], axis=0)
        return cls(
            suite=task.suite,
            task=task.index,
            language=task.language,
            episode=episode,
            seed=seed,
            success=success,
            steps=steps,
            actions=len(stats),
            steps_held=steps_held,
            steps_without_command=steps_without_command,
            forwards=sum(one.forwards for one in stats),
            accepted=tuple(accepted.tolist()),
            position_accepts=tuple(positions.tolist()),
            deviations=tuple(np.mean([one.deviations for one in stats], axis=0).tolist()),
            milliseconds={
                phase: _percentiles([one.milliseconds[phase] for one in stats]) for phase in stats[0].milliseconds
            },
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpisodeResult:
        """The inverse of `to_dict`."""
        milliseconds = {phase: (median, p95) for phase, (median, p95) in values["milliseconds"].items()}
        listed = {name: tuple(values[name]) for name in ("accepted", "position_accepts", "deviations")}
        return cls(**{**values, **listed, "milliseconds": milliseconds})

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def run_episode(
    policy: Policy,
    environment: Environment,
    task: Task,
    episode: int,
    seed: int,
    max_steps: int | None = None,
    on_frame: Callable[[Frame], None] | None = None,
    latency: Latency = NO_LATENCY,
    hold_time: float = HOLD_TIME,
) -> EpisodeResult:
    """One episode by OpenVLA's LIBERO protocol: until the first success or the suite's last step.

    Args:
        environment: the scene of `task`.
        max_steps: another limit than the suite's.
        on_frame: called with every frame, the first one before any action.
        latency: of a command, in simulated time; without any the scene waits for each.
        hold_time: see `TimedPolicy`.
    """
    limit = STEP_LIMITS[task.suite] if max_steps is None else max_steps
    policy.reset()
    timed = TimedPolicy(policy, task.language, latency, hold_time)
    frame = environment.reset(episode, seed)
    if on_frame:
        on_frame(frame)
    while not frame.success and frame.step < limit:
        values = timed.values(frame)
        # Rendering is most of a step's time, and a slow policy does not look at every frame.
        frame = environment.step(values, render=on_frame is not None or timed.looks_at(frame.step + 1))
        if on_frame:
            on_frame(frame)
    return EpisodeResult.of(
        task,
        episode,
        seed,
        frame.success,
        frame.step,
        timed.stats,
        timed.steps_held,
        timed.steps_without_command,
    )


def accepted_positions(accepted: Sequence[int]) -> list[bool]:
    """(7) whether the token there is an accepted draft, from how many drafts each verification round accepted.

    The first token comes with the prefill; each round commits its accepted drafts and then one token of the target's.
    """
    return [False, *(drafted for count in accepted for drafted in [*[True] * count, False])]


def _percentiles(milliseconds: Sequence[float]) -> tuple[float, float]:
    median, p95 = np.percentile(milliseconds, [50, 95])
    return round(float(median), 3), round(float(p95), 3)
