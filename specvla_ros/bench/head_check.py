"""Whether the head's 256 rows of action tokens decide as its whole vocabulary would, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from specvla_ros.bench.frames import Frames
from specvla_ros.policy import ACTION_LENGTH, Action
from specvla_ros.runtime import OpenVLAPolicy


@dataclass(frozen=True, slots=True)
class HeadCheck:
    """What the target would have chosen over its whole vocabulary.

    Attributes:
        positions: seven for each action.
        text: of these, where the first choice is no action token.
    """

    positions: int
    text: int

    def sentence(self) -> str:
        """For the page."""
        if not self.text:
            return (
                f"Over the whole vocabulary the target's first choice is an action token at all {self.positions} "
                "positions: the head's 256 rows decide as OpenVLA's own decoding does."
            )
        return (
            f"Over the whole vocabulary the target's first choice is no action token at {self.text} of "
            f"{self.positions} positions: OpenVLA's own decoding writes text there, and this package the best action "
            "token."
        )


@torch.inference_mode()
def check_head(policy: OpenVLAPolicy, frames: Frames, actions: Sequence[Action]) -> HeadCheck:
    """Read each image once more with the tokens of its action behind the prompt.

    Args:
        actions: of plain greedy decoding, one for each image.
    """
    target = policy.decoder.target
    ids = target.config.action_ids
    text = 0
    for image, action in zip(frames.images, actions, strict=True):
        input_ids, pixels = policy.prepare(image, frames.instruction)
        read = torch.cat([input_ids, torch.tensor(action.tokens[:-1])]).to(target.device)
        embeddings = target.embed_prompt(read, target.project_image(pixels))
        positions = torch.arange(len(embeddings), device=target.device)
        features = target(embeddings, positions, target.new_cache(len(embeddings)))
        choices = target.logits(features[-ACTION_LENGTH:]).argmax(dim=-1)
        text += int(((choices < ids[0]) | (choices > ids[-1])).sum())
    return HeadCheck(ACTION_LENGTH * len(actions), text)
