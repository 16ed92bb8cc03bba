"""One episode in this process: the policy sees every frame, the scene waits for every action."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from specvla_ros.policy import ACTION_LENGTH, DecodeStats, Policy
from specvla_ros.sim.libero import STEP_LIMITS, Frame, Task


class Environment(Protocol):
    """What an episode needs of `LiberoEnvironment`."""

    def reset(self, episode: int, seed: int) -> Frame: ...

    def step(self, values: NDArray[np.float64]) -> Frame: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How an episode ended and what decoding its actions cost.

    Attributes:
        task: index in the suite; `language` is its instruction.
        episode: index of the benchmark's fixed initial state; `seed` that of what the state does not hold.
        steps: control steps, one action each.
        forwards: target forwards, the prefills included.
        accepted: verification rounds by how many draft tokens they accepted: none first, ACTION_LENGTH - 2 last.
        deviation: mean distance of a token from the target's argmax, in bins.
        median_ms, p95_ms: wall time of an action in the decoder.
    """

    suite: str
    task: int
    language: str
    episode: int
    seed: int
    success: bool
    steps: int
    forwards: int
    accepted: tuple[int, ...]
    deviation: float
    median_ms: float
    p95_ms: float

    @property
    def rounds(self) -> int:
        """Verification rounds."""
        return sum(self.accepted)

    @property
    def tokens_per_forward(self) -> float:
        """The Spec-VLA paper's accept length."""
        return ACTION_LENGTH * self.steps / self.forwards

    @property
    def accepted_drafts(self) -> int:
        """Draft tokens accepted in the whole episode."""
        return sum(count * rounds for count, rounds in enumerate(self.accepted))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EpisodeResult:
        """The inverse of `to_dict`."""
        return cls(**{**values, "accepted": tuple(values["accepted"])})

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
) -> EpisodeResult:
    """One episode by OpenVLA's LIBERO protocol: until the first success or the suite's last step.

    Args:
        environment: the scene of `task`.
        max_steps: another limit than the suite's.
        on_frame: called with every frame, the first one before any action.
    """
    limit = STEP_LIMITS[task.suite] if max_steps is None else max_steps
    stats: list[DecodeStats] = []
    policy.reset()
    frame = environment.reset(episode, seed)
    if on_frame:
        on_frame(frame)
    while not frame.success and frame.step < limit:
        assert frame.image is not None
        action = policy.act(frame.image, task.language)
        stats.append(action.stats)
        frame = environment.step(action.values)
        if on_frame:
            on_frame(frame)
    return _result(task, episode, seed, frame, stats)


def _result(task: Task, episode: int, seed: int, frame: Frame, stats: Sequence[DecodeStats]) -> EpisodeResult:
    accepted = np.bincount([count for one in stats for count in one.accepted], minlength=ACTION_LENGTH - 1)
    median, p95 = np.percentile([one.milliseconds["total"] for one in stats], [50, 95])
    return EpisodeResult(
        suite=task.suite,
        task=task.index,
        language=task.language,
        episode=episode,
        seed=seed,
        success=frame.success,
        steps=frame.step,
        forwards=sum(one.forwards for one in stats),
        accepted=tuple(accepted.tolist()),
        deviation=float(np.mean([one.deviations for one in stats])),
        median_ms=round(float(median), 3),
        p95_ms=round(float(p95), 3),
    )
