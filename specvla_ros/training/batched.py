"""OpenVLA over a batch with the actions known: what training needs, by the same modules as inference and no cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.training.llama_batch import (
    Rotation,
    finish_layer,
    rotated_keys_values,
    rotated_queries,
    rotation_at,
    run_layer,
    take,
)
from specvla_ros.vla.config import PATCHES
from specvla_ros.vla.llama import DecoderLayer, LlamaModel
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import BOS_ID


@dataclass(frozen=True, slots=True)
class TeacherForced:
    """What the target says of B images when each action token is read after the recorded ones.

    Attributes:
        logits: (B, 7, 256) of the action tokens, in id order.
        patches: (B, 256, hidden) projected patches, the language model's input.
        prompt_feature: (B, hidden) feature at the end of the prompt, from which the first action token is predicted.
    """

    logits: Tensor
    patches: Tensor
    prompt_feature: Tensor


@dataclass(frozen=True, slots=True)
class PromptTable:
    """Every prompt of the data.

    Attributes:
        ids: (prompts, longest) token ids, BOS first; filled up with BOS behind the prompt's end.
        lengths: (prompts,) ids that count.
    """

    ids: Tensor
    lengths: Tensor

    @classmethod
    def from_ids(cls, prompts: list[tuple[int, ...]]) -> PromptTable:
        """Put prompts of different lengths into one table."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = torch.full((len(prompts), int(lengths.max())), BOS_ID)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        return cls(ids, lengths)


def teacher_forced(
    target: OpenVLA, pixel_values: Tensor, prompt_ids: Tensor, prompt_lengths: Tensor, action_ids: Tensor
) -> TeacherForced:
    """Predict each of the seven action tokens from the image, the prompt and the tokens before it.

    A prompt shorter than the longest is followed at once by the action and only then by filling, so that causal
    attention keeps the filling from everything that counts, and no mask is needed.

    Args:
        pixel_values: (B, 6, 224, 224).
        prompt_ids: (B, p) ids, BOS first; whatever lies behind a prompt's length is not read.
        prompt_lengths: (B,) ids of each prompt.
        action_ids: (B, 7) ids of the recorded action.
    """
    patches = target.projector(target.vision_backbone(pixel_values))
    ids = _append_action(prompt_ids, prompt_lengths, action_ids[:, :-1])
    text = target.embed_tokens(ids)
    # Autocast made the patches bfloat16; the sums that run through the layers stay in the weights' type.
    embeddings = torch.cat([text[:, :1], patches.to(text.dtype), text[:, 1:]], dim=1)
    first = prompt_lengths + PATCHES - 1
    read = first[:, None] + torch.arange(ACTION_LENGTH, device=first.device)
    features = read_features(target.language_model.model, embeddings, read)
    return TeacherForced(target.action_logits(features), patches, features[:, 0])


def read_features(model: LlamaModel, embeddings: Tensor, read: Tensor) -> Tensor:
    """Llama's features at some positions of each sequence, plain causal attention throughout.

    Args:
        embeddings: (B, n, hidden).
        read: (B, m) positions to read. The last layer computes queries and feed-forward for these alone.

    Returns:
        (B, m, hidden) features after the final norm.
    """
    rotation = model.rotary(torch.arange(embeddings.shape[1], device=embeddings.device))
    x = embeddings
    for layer in model.layers[:-1]:
        x, _ = run_layer(layer, x, rotation)
    return model.norm(_last_layer(model.layers[-1], x, rotation, rotation_at(model.rotary, read), read))


def _append_action(prompt_ids: Tensor, prompt_lengths: Tensor, action_ids: Tensor) -> Tensor:
    """(B, p + 6): each prompt followed by its action tokens."""
    ids = F.pad(prompt_ids, (0, action_ids.shape[1]), value=BOS_ID)
    places = prompt_lengths[:, None] + torch.arange(action_ids.shape[1], device=ids.device)
    return ids.scatter(1, places, action_ids)


def _last_layer(layer: nn.Module, x: Tensor, rotation: Rotation, read_rotation: Rotation, read: Tensor) -> Tensor:
    """(B, m, hidden): what the layer says at the positions to read."""
    assert isinstance(layer, DecoderLayer)
    normed = layer.input_layernorm(x)
    keys_values = rotated_keys_values(layer.self_attn, normed, rotation)
    queries = rotated_queries(layer.self_attn, take(normed, read), read_rotation)
    before = torch.arange(x.shape[1], device=x.device) <= read[:, None, :, None]
    return finish_layer(layer, take(x, read), queries, keys_values, mask=before)
