"""`specvla compare`: two or more conditions on the same frames, and how far their actions lie apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from specvla_ros.bags.condition import Condition, Load, Loaded, labels
from specvla_ros.bags.recording import Frame, Recording
from specvla_ros.policy import ACTION_DIMENSIONS, Action

LIBERO_STEP = (0.05, 0.05, 0.05, 0.5, 0.5, 0.5, 1.0)
"""Metres and radians that one unit of an action moves the hand in a step of LIBERO's controller."""
METRIC = ("m", "m", "m", "rad", "rad", "rad", "0..1")
OWN = ("unit",) * 6 + ("0..1",)
"""Of an action whose controller is not known: what its checkpoint's data was recorded in."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one condition made of n frames.

    Attributes:
        bins: (n, 7) int64: place of each token, counted from the end of its checkpoint's vocabulary.
        values: (n, 7) float64 in the checkpoint's units; `is_libero` says that these are LIBERO's controller's.
        forwards: (n,) int64: target forwards of an action.
        milliseconds: (n,) float64: image preparation and decoding.
    """

    bins: NDArray[np.int64]
    values: NDArray[np.float64]
    forwards: NDArray[np.int64]
    milliseconds: NDArray[np.float64]
    is_libero: bool


def compare(conditions: Sequence[Condition], recording: Recording, limit: int, load: Load) -> dict[str, Any]:
    """Decode the first `limit` frames under every condition (0: all), one checkpoint in memory after the other.

    Raises:
        SpecVLAError: an image, a checkpoint or a draft cannot be used.
    """
    decoded: list[Decoded] = []
    count, console = min(limit or recording.image_count, recording.image_count), Console(stderr=True)
    for _, group in itertools.groupby(conditions, key=lambda condition: condition.checkpoint):
        loaded, frames = load(list(group)), itertools.islice(recording.frames(), limit or None)
        decoded += decode(loaded, track(frames, "frames", total=count, console=console, transient=True))
    names = labels(conditions)
    is_known = all(one.is_libero for one in decoded)
    step = LIBERO_STEP if is_known else (1.0,) * len(LIBERO_STEP)
    return {
        "frames": len(decoded[0].forwards),
        "reference": names[0],
        "dimensions": list(ACTION_DIMENSIONS),
        "units": list(METRIC if is_known else OWN),
        "conditions": [
            {
                "label": name,
                "checkpoint": condition.checkpoint,
                "draft": condition.draft,
                "thresholds": list(condition.thresholds),
                **summary(one, decoded[0], step),
            }
            for name, condition, one in zip(names, conditions, decoded, strict=True)
        ],
    }


def decode(several: Sequence[Loaded], frames: Iterable[Frame]) -> list[Decoded]:
    """Frame by frame in turn, so that whatever else the machine does hits all alike; the order changes each time."""
    actions: list[list[Action]] = [[] for _ in several]
    episode = 0
    for number, frame in enumerate(frames):
        image = frame.rgb()
        if not episode:
            for loaded in several:
                loaded.policy.act(image, frame.instruction)  # the first action of a policy warms up
        if frame.episode != episode:
            episode = frame.episode
            for loaded in several:
                loaded.policy.reset()
        for turn in range(len(several)):
            index = (number + turn) % len(several)
            actions[index].append(several[index].policy.act(image, frame.instruction))
    return [
        Decoded(
            bins=loaded.vocabulary_size - np.array([action.tokens for action in taken]),
            values=np.array([action.values for action in taken]),
            forwards=np.array([action.stats.forwards for action in taken]),
            milliseconds=np.array([action.stats.milliseconds["total"] for action in taken]),
            is_libero=loaded.is_libero,
        )
        for loaded, taken in zip(several, actions, strict=True)
    ]


def summary(one: Decoded, reference: Decoded, step: Sequence[float]) -> dict[str, Any]:
    """One condition's figures; `bins` and `units` hold seven numbers each for mean, p95 and max of the deviation.

    Args:
        step: what one unit of each value is in the units that are shown.
    """
    bins, units = np.abs(one.bins - reference.bins), np.abs(one.values - reference.values) * step
    p50, p95 = np.percentile(one.milliseconds, [50, 95])
    return {
        "accept_length": float(len(ACTION_DIMENSIONS) * len(one.forwards) / one.forwards.sum()),
        "milliseconds": {"p50": float(p50), "p95": float(p95)},
        "frames_equal": int((bins == 0).all(axis=1).sum()),
        "bins": _spread(bins),
        "units": _spread(units),
    }


def _spread(deviations: NDArray[Any]) -> dict[str, list[float]]:
    """By dimension, of (n, 7) deviations."""
    return {
        "mean": deviations.mean(axis=0).tolist(),
        "p95": np.percentile(deviations, 95, axis=0).tolist(),
        "max": deviations.max(axis=0).tolist(),
    }
