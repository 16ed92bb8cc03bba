"""Accept lengths: how many tokens a target forward brings, by draft and by threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from specvla_ros.errors import DataError
from specvla_ros.policy import ACTION_LENGTH, expand_thresholds
from specvla_ros.runtime import CAPACITY, OpenVLAPolicy
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import History
from specvla_ros.speculative.eagle import EagleDrafter, EagleHead, TreeConfig
from specvla_ros.training.demonstrations import demonstration_files, read_demonstrations
from specvla_ros.training.held_out import HELD_OUT_EVERY, is_held_out
from specvla_ros.training.regenerated import RegeneratedFrames
from specvla_ros.vla.model import OpenVLA

Seen = tuple[Tensor, Tensor]
"""What an action is decoded from: (n,) prompt ids and (256, hidden) projected patches."""
VALIDATION_THRESHOLDS = (0, 3, 9)
"""Strict, and relaxed as far as the suites bear it."""


@dataclass(slots=True)
class AcceptLength:
    """What decoding `frames` actions with one draft at one threshold cost.

    Attributes:
        threshold: bins, for the six motion dimensions; the gripper is exact.
        forwards: of the target, the prefills included.
        deviation: sum over all tokens of the distance in bins from the target's argmax.
    """

    draft: str
    threshold: int
    frames: int = 0
    forwards: int = 0
    deviation: int = 0

    @property
    def tokens_per_forward(self) -> float:
        """The published accept length; 1 without a draft, at most 3.5: a prefill and one verification."""
        return ACTION_LENGTH * self.frames / self.forwards

    @property
    def mean_deviation(self) -> float:
        """Bins by which a token is off the target's answer, on average."""
        return self.deviation / (ACTION_LENGTH * self.frames)

    def to_dict(self) -> dict[str, str | int | float]:
        """For JSON."""
        return {
            "draft": self.draft,
            "threshold": self.threshold,
            "frames": self.frames,
            "forwards": self.forwards,
            "tokens_per_forward": self.tokens_per_forward,
            "mean_deviation": self.mean_deviation,
        }


def measure_accept_lengths(
    policy: OpenVLAPolicy,
    drafts: Sequence[str],
    thresholds: Sequence[int],
    demonstrations: Sequence[Path],
    frames: int,
) -> list[AcceptLength]:
    """Act through whole held-out episodes, frame after frame as a robot sees them, until `frames` are done.

    The steps where the demonstration does not move are left out, as in the target's training. Each draft forgets its
    last actions between episodes. The episodes are spread over the tasks.

    Args:
        policy: the target; its own draft does not count.
        drafts: names as `load_policy` takes them.
        thresholds: bins, for the six motion dimensions.
        frames: steps at most, over all episodes; fewer where fewer are held out.

    Raises:
        DataError: there are no held-out episodes.
    """
    decoders = {name: policy.with_draft(name, policy.thresholds).decoder for name in drafts}
    rows = [AcceptLength(name, threshold) for name in drafts for threshold in thresholds]
    episodes = _held_out_episodes(policy, demonstrations, frames)
    for episode in track(episodes, "accept lengths", console=Console(stderr=True), transient=True):
        for row in rows:
            decode_frames(decoders[row.draft], episode, row)
    if not rows or not rows[0].frames:
        raise DataError(
            f"no held-out episodes (every {HELD_OUT_EVERY}th of a file) or no drafts; record more demonstrations"
        )
    return rows


def decode_frames(decoder: SpeculativeDecoder, frames: Iterable[Seen], row: AcceptLength) -> None:
    """Decode each frame of an episode at the row's threshold and add up what it cost."""
    history = History()
    thresholds = expand_thresholds(row.threshold)
    for input_ids, patches in frames:
        _, stats = decoder.decode_patches(input_ids, patches, thresholds, history)
        row.frames += 1
        row.forwards += stats.forwards
        row.deviation += sum(stats.deviations)


def held_out_accept_lengths(
    target: OpenVLA, head: EagleHead, held_out: RegeneratedFrames, frames: int
) -> list[AcceptLength]:
    """Decode held-out frames with the head as the drafter, at each of `VALIDATION_THRESHOLDS`.

    Args:
        frames: at most so many, evenly spread over those held out.
    """
    copy = EagleHead(head.config).to(target.device)
    copy.load_state_dict(head.state_dict())
    drafter = EagleDrafter(target, copy.to(target.dtype).eval(), capacity=CAPACITY, tree=TreeConfig())
    decoder = SpeculativeDecoder(target, drafter, capacity=CAPACITY)
    count = min(frames, len(held_out))
    rows = [AcceptLength("draft", threshold) for threshold in VALIDATION_THRESHOLDS]
    for index in range(count):
        frame = held_out[index * len(held_out) // count]
        seen = [(frame.input_ids, frame.patches.to(target.device, target.dtype))]
        for row in rows:
            decode_frames(decoder, seen, row)
    return rows


def accept_length_table(rows: Sequence[AcceptLength]) -> Table:
    """For the terminal: a line a draft with a column a threshold."""
    thresholds = list(dict.fromkeys(row.threshold for row in rows))
    found = {(row.draft, row.threshold): row for row in rows}
    title = f"tokens per target forward, {rows[0].frames} held-out frames" if rows else None
    table = Table("draft", *(f"r = {threshold}" if threshold else "strict" for threshold in thresholds), title=title)
    for draft in dict.fromkeys(row.draft for row in rows):
        lengths = (found[draft, threshold].tokens_per_forward for threshold in thresholds)
        table.add_row(draft, *(f"{length:.2f}" for length in lengths))
    return table


@torch.inference_mode()
def _held_out_episodes(policy: OpenVLAPolicy, demonstrations: Sequence[Path], frames: int) -> Iterator[list[Seen]]:
    """Held-out episodes, the first of each file, then the second of each, with `frames` steps in all."""
    sources = [
        (demonstration for index, demonstration in enumerate(read_demonstrations(path)) if is_held_out(index))
        for path in demonstration_files(demonstrations)
    ]
    left = frames
    while sources and left > 0:
        for source in list(sources):
            demonstration = next(source, None)
            if demonstration is None:
                sources.remove(source)
                continue
            if left <= 0:
                break
            images = [demonstration.images[step] for step in demonstration.moving_steps()[:left]]
            left -= len(images)
            prepared = (policy.prepare(image, demonstration.language) for image in images)
            yield [(input_ids, policy.decoder.target.project_image(pixels)) for input_ids, pixels in prepared]
