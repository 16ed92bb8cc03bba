"""The loss of Spec-VLA's draft over a batch, and the head's forward that it needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.speculative.eagle import EagleHead
from specvla_ros.training.llama_batch import (
    extended,
    finish_layer,
    rotated_keys_values,
    rotated_queries,
    rotation_at,
    take,
)
from specvla_ros.training.regenerated import RegeneratedBatch
from specvla_ros.vla.llama import DecoderLayer

PREDICTED = ACTION_LENGTH - 1
"""a2..a7: the first token comes with the target's prefill."""
NOISE = 0.2
NOISE_LENGTH = 512
"""EAGLE's noise is uniform over NOISE, times 512 over the length of the sequence (Spec-VLA's code divides by the
hidden size instead)."""


@dataclass(frozen=True, slots=True)
class DraftLoss:
    """The sum to minimise, its two parts, and the share of positions whose most likely token is the target's."""

    total: Tensor
    features: Tensor
    logits: Tensor
    agreement: Tensor


def embed_batch(embedding: nn.Embedding, batch: RegeneratedBatch) -> Tensor:
    """(B, m + 256, hidden) input embeddings in float32: BOS, patches, the rest of the prompt, the action."""
    text = embedding(batch.input_ids).float()
    return torch.cat([text[:, :1], batch.patches.float(), text[:, 1:]], dim=1)


def add_noise(features: Tensor, lengths: Tensor) -> Tensor:
    """Uniform noise on the head's input features, so that it learns to bear its own errors (EAGLE)."""
    scale = NOISE * NOISE_LENGTH / (lengths + PREDICTED)
    return features + (torch.rand_like(features) - 0.5) * scale[:, None, None]


def draft_loss(
    head: EagleHead,
    output_weight: Tensor,
    embeddings: Tensor,
    noisy_features: Tensor,
    batch: RegeneratedBatch,
    *,
    unroll: int,
    logits_weight: float,
) -> DraftLoss:
    """SmoothL1 between predicted and target features + `logits_weight` x soft cross-entropy of their logits.

    Both are averages over the positions that count: all six in the first step of the unrolling, one fewer in each
    further one.

    Args:
        output_weight: (v, hidden) rows of the target's frozen head, the 256 action tokens' or all.
        embeddings: (B, m + 256, hidden), see `embed_batch`.
        noisy_features: (B, m + 256, hidden) the head's input; `batch.features` are the aim.
        unroll: see `unrolled_features`.
    """
    # The head alone runs in bfloat16 on a GPU: the target's logits are the aim and stay exact.
    with torch.autocast("cuda", torch.bfloat16, enabled=embeddings.is_cuda):
        predicted = unrolled_features(head, embeddings, noisy_features, batch.lengths, unroll).float()
    aim = take(batch.features.float(), batch.lengths[:, None] + _steps(batch.lengths))
    depth = torch.arange(unroll, device=aim.device)
    counts = (_steps(batch.lengths) >= depth[:, None])[:, None].expand(-1, len(aim), -1)
    feature_loss = F.smooth_l1_loss(predicted, aim.expand_as(predicted), reduction="none").mean(dim=-1)
    target_logits = F.linear(aim, output_weight)
    logits = F.linear(predicted, output_weight)
    logits_loss = -(target_logits.softmax(dim=-1) * logits.log_softmax(dim=-1)).sum(dim=-1)
    agrees = (logits.argmax(dim=-1) == target_logits.argmax(dim=-1)).float()
    features, crossed, agreement = (
        (value * counts).sum() / counts.sum() for value in (feature_loss, logits_loss, agrees)
    )
    return DraftLoss(features + logits_weight * crossed, features, crossed, agreement)


def unrolled_features(head: EagleHead, embeddings: Tensor, features: Tensor, lengths: Tensor, unroll: int) -> Tensor:
    """What the head predicts for the positions of a1..a6, whose features give a2..a7.

    Step 1 reads the target's features everywhere, as after a verification. Step k reads at each action position what
    step k - 1 predicted for it, as a draft k tokens deep does (EAGLE-3's training-time test): a query then sees the
    target's pairs up to its draft's root, and behind it the one pair of each step that lies on its own path.

    The head has one layer, so that queries, output projection and feed-forward are needed at the six positions alone.

    Args:
        embeddings, features: (B, n, hidden) of a prefix, six action tokens and filling; the pair at index i is
            (embedding i + 1, feature i).
        lengths: (B,) positions L of each prefix; a1 stands at L.
        unroll: steps, 1 to 6.

    Returns:
        (unroll, B, 6, hidden); the first k - 1 positions of step k have no draft that deep and mean nothing.
    """
    layer = head.layers[0]
    assert isinstance(layer, DecoderLayer)
    steps = _steps(lengths)
    pairs = lengths[:, None] - 1 + steps
    fused = head.fc(torch.cat([embeddings[:, 1:], features[:, :-1]], dim=2))
    positions = torch.arange(fused.shape[1], device=fused.device)
    keys_values = rotated_keys_values(layer.self_attn, fused, head.rotary(positions))
    action_embeddings, first_feature = take(embeddings, pairs + 1), take(features, pairs[:, :1])
    rotation = rotation_at(head.rotary, pairs)
    x = take(fused, pairs)
    outputs: list[Tensor] = []
    for depth in range(unroll):
        if depth:
            x = head.fc(torch.cat([action_embeddings, torch.cat([first_feature, outputs[-1][:, :-1]], dim=1)], dim=2))
            keys_values = extended(keys_values, rotated_keys_values(layer.self_attn, x, rotation))
        target_pairs = positions <= pairs[:, :, None] - depth
        own_path = [steps == steps[:, None] - depth + level for level in range(1, depth + 1)]
        mask = torch.cat([target_pairs, *(pair.expand(len(pairs), -1, -1) for pair in own_path)], dim=2)
        queries = rotated_queries(layer.self_attn, x, rotation)
        outputs.append(finish_layer(layer, x, queries, keys_values, mask=mask[:, None]))
    return torch.stack(outputs)


def _steps(lengths: Tensor) -> Tensor:
    """0..5 on the batch's device."""
    return torch.arange(PREDICTED, device=lengths.device)
