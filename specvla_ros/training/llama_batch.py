"""Llama's layers over a batch of sequences without the decoder's cache: queries, keys and values are the caller's.

x is (B, n, hidden) throughout; queries, keys and values are (B, heads, n, head_size).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specvla_ros.vla.attention import attend
from specvla_ros.vla.llama import Attention, DecoderLayer, RotaryEmbedding, rotate

Rotation = tuple[Tensor, Tensor]
KeysValues = tuple[Tensor, Tensor]


def rotation_at(rotary: RotaryEmbedding, positions: Tensor) -> Rotation:
    """Cosines and sines of (B, m) positions that differ from row to row."""
    cosines, sines = rotary(positions)
    return cosines[:, None], sines[:, None]


def rotated_queries(attention: Attention, x: Tensor, rotation: Rotation) -> Tensor:
    """Queries, rotated by their positions' angles."""
    return rotate(_heads(attention, attention.q_proj(x)), rotation)


def rotated_keys_values(attention: Attention, x: Tensor, rotation: Rotation) -> KeysValues:
    """Keys, rotated by their positions' angles, and values."""
    return rotate(_heads(attention, attention.k_proj(x)), rotation), _heads(attention, attention.v_proj(x))


def run_layer(
    layer: nn.Module, x: Tensor, rotation: Rotation, past: KeysValues | None = None
) -> tuple[Tensor, KeysValues]:
    """One layer over n new positions, causally; with the keys and values of all.

    Where there is a past n is 1, so that no mask is needed.
    """
    assert isinstance(layer, DecoderLayer)
    normed = layer.input_layernorm(x)
    keys_values = rotated_keys_values(layer.self_attn, normed, rotation)
    if past:
        keys_values = extended(past, keys_values)
    queries = rotated_queries(layer.self_attn, normed, rotation)
    return finish_layer(layer, x, queries, keys_values, is_causal=past is None), keys_values


def extended(past: KeysValues, new: KeysValues) -> KeysValues:
    """Keys and values of new positions behind those of past ones."""
    return torch.cat([past[0], new[0]], dim=2), torch.cat([past[1], new[1]], dim=2)


def finish_layer(
    layer: DecoderLayer,
    x: Tensor,
    queries: Tensor,
    keys_values: KeysValues,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """The rest of the layer: attention and feed-forward, each added to the layer's input x at the queries' places."""
    mixed = attend(queries, *keys_values, mask=mask, is_causal=is_causal)
    x = x + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    return x + layer.mlp(layer.post_attention_layernorm(x))


def take(x: Tensor, places: Tensor) -> Tensor:
    """x at (B, m) places: (B, m, hidden)."""
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))


def _heads(attention: Attention, x: Tensor) -> Tensor:
    return x.unflatten(2, (attention.heads, -1)).transpose(1, 2)
