"""The target's own answers to a batch of images: greedy decoding with a batched cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.training.llama_batch import KeysValues, run_layer
from specvla_ros.vla.model import OpenVLA


@dataclass(frozen=True, slots=True)
class GreedyActions:
    """What the target saw and answered, for B images and one prompt of n ids.

    Attributes:
        patches: (B, 256, hidden) projected patches.
        features: (B, n + 256 + 6, hidden) after the final norm: of the prompt with its image, then of the first six
            action tokens.
        tokens: (B, 7) ids.
    """

    patches: Tensor
    features: Tensor
    tokens: Tensor


@torch.inference_mode()
def act_greedily(target: OpenVLA, input_ids: Tensor, pixel_values: Tensor) -> GreedyActions:
    """Seven tokens for each image, each the argmax given the target's own tokens before it.

    Args:
        input_ids: (n,) ids of the prompt, BOS first.
        pixel_values: (B, 6, 224, 224).
    """
    vision = target.vision_backbone(pixel_values.to(target.device, target.dtype))
    patches = target.projector(vision)
    text = target.embed_tokens(input_ids.to(target.device)).expand(len(patches), -1, -1)
    x = torch.cat([text[:, :1], patches, text[:, 1:]], dim=1)
    past: list[KeysValues | None] = [None] * len(target.language_model.model.layers)
    start = 0
    features, tokens = [], []
    for _ in range(ACTION_LENGTH):
        features.append(_read(target, x, start, past))
        tokens.append(target.predict_action_tokens(features[-1][:, -1]))
        start += x.shape[1]
        x = target.embed_tokens(tokens[-1][:, None])
    return GreedyActions(patches, torch.cat(features, dim=1), torch.stack(tokens, dim=1))


def _read(target: OpenVLA, x: Tensor, start: int, past: list[KeysValues | None]) -> Tensor:
    """(B, n, hidden) embeddings at positions from `start` on to features; `past` is brought up to date."""
    model = target.language_model.model
    rotation = model.rotary(torch.arange(start, start + x.shape[1], device=x.device))
    for index, layer in enumerate(model.layers):
        x, past[index] = run_layer(layer, x, rotation, past[index])
    return model.norm(x)
