"""What is compared on a bag's frames: checkpoints, drafts and thresholds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.threshold import threshold_text
from specvla_ros.policy import PLAIN, Policy, Thresholds, expand_thresholds
from specvla_ros.shipped import NAME, checkpoint_directory
from specvla_ros.vla.actions import select_norm_stats
from specvla_ros.vla.checkpoint import read_norm_stats


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to decode.

    Attributes:
        checkpoint: directory or hub name; empty is the package's own.
        thresholds: by dimension, in bins.
    """

    checkpoint: str
    draft: str
    thresholds: Thresholds


@dataclass(frozen=True, slots=True)
class Loaded:
    """A condition's policy, and what its actions mean.

    Attributes:
        vocabulary_size: how many real ids it has: an action's bins are counted from its end.
        is_libero: whether its actions are un-normalised to the units of LIBERO's controller.
    """

    policy: Policy
    vocabulary_size: int
    is_libero: bool


Load = Callable[[Sequence[Condition]], list[Loaded]]


def combine(
    checkpoints: Sequence[str], drafts: Sequence[str], thresholds: Sequence[int | tuple[int, ...]]
) -> list[Condition]:
    """Every combination, each once, those of one checkpoint together; the first is what the others are compared with.

    Raises:
        ConfigurationError: there is only one, or a threshold is out of range.
    """
    conditions = [
        Condition(checkpoint, draft, expand_thresholds(0 if draft == PLAIN else threshold))
        for checkpoint, draft, threshold in itertools.product(checkpoints, drafts, thresholds)
    ]
    several = list(dict.fromkeys(conditions))
    if len(several) < 2:
        raise ConfigurationError(
            f"there is only one condition, draft {several[0].draft} with {labels(several)[0]}; give two of "
            f"--threshold, --draft or --checkpoint (draft {PLAIN} knows no threshold)"
        )
    return several


def labels(conditions: Sequence[Condition]) -> list[str]:
    """What tells each condition from the others, and its threshold in any case."""
    checkpoints, drafts = {one.checkpoint for one in conditions}, {one.draft for one in conditions}
    return [
        ", ".join(
            [
                *([one.checkpoint or NAME] if len(checkpoints) > 1 else []),
                *([f"draft {one.draft}"] if len(drafts) > 1 else []),
                f"threshold {_text(one.thresholds)}",
            ]
        )
        for one in conditions
    ]


def _text(thresholds: Thresholds) -> str:
    is_one = thresholds == expand_thresholds(thresholds[0])
    return threshold_text(thresholds[0] if is_one else thresholds)


def load(
    conditions: Sequence[Condition], device: str, dtype: str, unnorm_key: str, preparation: str = "auto"
) -> list[Loaded]:
    """Policies of one checkpoint on the same weights; on one thread, as the policy node's default is.

    Raises:
        CheckpointError: the checkpoint or a draft cannot be used.
        ConfigurationError: there is no such image preparation.
    """
    import torch

    from specvla_ros.runtime import SharedModel, load_policy

    torch.set_num_threads(1)
    checkpoint = conditions[0].checkpoint
    directory = checkpoint_directory(checkpoint)
    key, _ = select_norm_stats(read_norm_stats(directory), unnorm_key or None, directory)
    first = load_policy(
        checkpoint or None,
        conditions[0].draft,
        device=device,
        dtype=dtype,
        unnorm_key=unnorm_key or None,
        preparation=preparation,
    )
    vocabulary_size = first.decoder.target.config.vocabulary_size
    model = SharedModel(first, conditions[0].draft)
    return [
        Loaded(model.policy(one.draft, one.thresholds), vocabulary_size, key.startswith("libero")) for one in conditions
    ]
