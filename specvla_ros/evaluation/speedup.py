"""Decode times of several conditions and of plain greedy decoding, frame by frame in turn on the same frames.

What else a machine does meanwhile, and how warm it is, then hits all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specvla_ros.evaluation.rollout import Environment
from specvla_ros.policy import LooksAhead, Policy
from specvla_ros.sim.libero import RGB, Task

RESAMPLES = 2000
"""Of the bootstrap."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Decode times of one policy, in milliseconds for an action, image preparation included.

    Attributes:
        speed_up: how many times as fast as the baseline: the baseline's mean time over this one's.
        interval: 95 % of the speed-up, by bootstrap: over the clips, or over the frames where there is one clip only.
            The frames of an episode resemble each other, so over them it says how sure the measurement is, not how
            much episodes differ.
    """

    mean_ms: float
    median_ms: float
    p95_ms: float
    speed_up: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Clip:
    """Images of one episode in its order, because drafts look at the last actions; at least one."""

    images: Sequence[RGB]
    instruction: str


def record_frames(policy: Policy, environment: Environment, task: Task, count: int, seed: int = 0) -> list[RGB]:
    """The first `count` images that a policy sees in the task's first episode; fewer when it is solved before."""
    policy.reset()
    frame = environment.reset(0, seed)
    images: list[RGB] = []
    while True:
        assert frame.image is not None
        images.append(frame.image)
        if frame.success or len(images) == count:
            return images
        frame = environment.step(policy.act(frame.image, task.language).values)


def measure_speed(
    policies: Sequence[Policy],
    images: Sequence[RGB],
    instruction: str,
    *,
    ahead: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> list[Speed]:
    """Time every policy on every image of one episode; see `measure_clips`."""
    return measure_clips(policies, [Clip(images, instruction)], ahead=ahead, advance=advance)


def measure_clips(
    policies: Sequence[Policy],
    clips: Sequence[Clip],
    *,
    ahead: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> list[Speed]:
    """Time every policy on every image of every clip, all in turn on each image.

    The order changes from frame to frame, so that none always comes after the same other one. Drafts know nothing of
    the clip before.

    Args:
        policies: the baseline first: plain greedy decoding with the same weights, kernels and cache.
        clips: at least one.
        ahead: the next image is there before the action is decided, as from a camera that is faster than the policy.
        advance: called after each image.

    Returns:
        A row for each policy, the baseline's own with a speed-up of 1.
    """
    milliseconds = [_measure(policies, clip, ahead, advance) for clip in clips]
    # Of one clip each frame is drawn on its own; of several a clip is drawn whole.
    units = np.hstack(milliseconds if len(clips) == 1 else [one.sum(axis=1, keepdims=True) for one in milliseconds])
    times = np.hstack(milliseconds)
    return [_speed(times[index], times[0], bootstrap_ratio(units[0], units[index])) for index in range(len(policies))]


def _measure(policies: Sequence[Policy], clip: Clip, ahead: bool, advance: Callable[[], None]) -> NDArray[np.float64]:
    """(policies, images) milliseconds."""
    images = clip.images
    for policy in policies:
        policy.act(images[0], clip.instruction)  # the first action with an instruction warms up
        policy.reset()
    milliseconds = np.empty((len(policies), len(images)))
    for frame, image in enumerate(images):
        for turn in range(len(policies)):
            index = (frame + turn) % len(policies)
            policy = policies[index]
            if ahead and isinstance(policy, LooksAhead) and frame + 1 < len(images):
                policy.look(images[frame + 1])
            milliseconds[index, frame] = policy.act(image, clip.instruction).stats.milliseconds["total"]
        advance()
    return milliseconds


def _speed(times: NDArray[np.float64], baseline: NDArray[np.float64], interval: tuple[float, float]) -> Speed:
    """One policy's row from (n,) milliseconds of the same n frames as the baseline's."""
    median, p95 = np.percentile(times, [50, 95])
    return Speed(
        mean_ms=float(times.mean()),
        median_ms=float(median),
        p95_ms=float(p95),
        speed_up=float(baseline.mean() / times.mean()),
        interval=interval,
    )


def bootstrap_ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the ratio of the means of n pairs, by drawing pairs with replacement; the same every time."""
    drawn = np.random.default_rng(0).integers(len(numerator), size=(RESAMPLES, len(numerator)))
    low, high = np.percentile(numerator[drawn].mean(axis=1) / denominator[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
