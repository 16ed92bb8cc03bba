"""Llama-2 over a static key-value cache, with the parameter names of the public checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.gpu_memory import release_unused
from specvla_ros.vla import kernels
from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.config import LlamaConfig
from specvla_ros.vla.products import Linear, gated_linear, linear
from specvla_ros.vla.quantised import KINDS, QuantisedLinear

M = TypeVar("M", bound=nn.Module)
Product = Callable[[Tensor], Tensor]
"""(n, in) to (n, out)."""


class RMSNorm(nn.Module):
    """Root-mean-square norm; the sum of squares is taken in float32 or better."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if kernels.usable(x):
            return kernels.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)

    def after_adding(self, x: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """x + change, and its norm."""
        if kernels.usable(x):
            return kernels.add_rms_norm(x, change, self.weight, self.eps)
        x = x + change
        return x, self(x)


class RotaryEmbedding(nn.Module):
    """Cosines and sines of every position, computed once in float32 as Llama does."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        exponents = torch.arange(0, config.head_size, 2, dtype=torch.float32, device="cpu") / config.head_size
        angles = torch.outer(
            torch.arange(config.max_position_embeddings, dtype=torch.float32, device="cpu"),
            1.0 / config.rope_theta**exponents,
        )
        angles = torch.cat([angles, angles], dim=1)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (n, head_size), of integer positions (n,)."""
        return self.cosines[positions], self.sines[positions]


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (..., heads, n, head_size) queries or keys by their positions' angles (RoPE, halves convention)."""
    cosines, sines = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines


class Attention(nn.Module):
    """Self-attention over the cache.

    Attributes:
        qkv: the first three projections as one product, after `fuse`.
    """

    qkv: Product | None

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        width = config.hidden_size
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.o_proj: Linear | QuantisedLinear = Linear(width, width)
        self.qkv = None

    def fuse(self) -> None:
        """Queries, keys and values by one product from now on; the parameters stay, as parts of the one piece."""
        self.qkv = partial(linear, weight=_in_one_piece(self.q_proj, self.k_proj, self.v_proj))

    def quantise(self, kind: str) -> None:
        """8 bits from now on, `fuse`d; the parameters are gone."""
        assert isinstance(self.o_proj, Linear)
        self.qkv = _quantised(kind, self.q_proj, self.k_proj, self.v_proj)
        self.o_proj = _quantised(kind, self.o_proj)

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], cache: KeyValueCache, layer: int, mask: Tensor | None
    ) -> Tensor:
        if self.qkv is None:
            projected = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=1)
        else:
            projected = self.qkv(x)
        window = cache.length + len(x) if mask is None else mask.shape[1]
        cache.require_room(window)
        if mask is not None and kernels.attends(projected, x.shape[1] // self.heads):
            return self.o_proj(kernels.attend(projected, rotation, cache, layer, self.heads, mask))
        if kernels.usable(x):
            queries = kernels.rotate_and_store(projected, rotation, cache, layer, self.heads)
        else:
            new = projected.view(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)
            queries, new_keys = rotate(new[:2], rotation)
            cache.write(layer, new_keys, new[2])
        keys, values = cache.read(layer, window)
        mixed = F.scaled_dot_product_attention(
            queries[None], keys[None], values[None], attn_mask=mask, is_causal=mask is None and len(x) > 1
        )[0]
        return self.o_proj(mixed.transpose(0, 1).reshape(x.shape))


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores: 0 where the mask is True, and minus infinity; made once for all layers."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def fuse_projections(module: M) -> M:
    """`fuse` throughout a model whose weights are loaded and lie where they will be used.

    What the single projections took is given back part by part: torch would keep it, half of a 7B model.
    """
    for part in module.modules():
        if isinstance(part, (Attention, Mlp)):
            part.fuse()
            release_unused()
    return module


def quantise_projections(module: M, device: torch.device, kind: str) -> M:
    """`quantise` throughout a model whose weights are loaded, part by part as they are moved to the device.

    A GPU then never has to hold the weights as they were.
    """
    for part in list(module.modules()):
        if isinstance(part, (Attention, Mlp)):
            part.to(device).quantise(kind)
            release_unused()
    for parameter in module.parameters():
        parameter.data = parameter.data.to(device, copy=True)  # it may lie in a file that is mapped
    return module.to(device)


def lay_out_projections(module: M, device: torch.device, weights: str) -> M:
    """`fuse_projections`, or `quantise_projections` where the weights are to be of one of its kinds."""
    return quantise_projections(module, device, weights) if weights in KINDS else fuse_projections(module)


def _quantised(kind: str, *projections: Linear, gated: bool = False) -> QuantisedLinear:
    """One product with the weights of several; these give theirs up, so that nothing is held twice."""
    weight = torch.cat([projection.weight.detach() for projection in projections])
    together = QuantisedLinear(weight, kind, gated=gated)
    for projection in projections:
        projection.weight = nn.Parameter(torch.empty(0), requires_grad=False)
    return together


def _in_one_piece(*projections: Linear) -> Tensor:
    """The weights below each other; the projections' own become parts of that piece, so that nothing is held twice."""
    piece = torch.cat([projection.weight.detach() for projection in projections])
    sizes = [projection.out_features for projection in projections]
    for projection, weight in zip(projections, piece.split(sizes), strict=True):
        projection.weight = nn.Parameter(weight, requires_grad=projection.weight.requires_grad)
    return piece


class Mlp(nn.Module):
    """Gated SiLU feed-forward.

    Attributes:
        gate_up: the first two projections and the gate as one product, after `fuse`.
    """

    gate_up: Product | None

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj: Linear | QuantisedLinear = Linear(config.intermediate_size, config.hidden_size)
        self.gate_up = None

    def fuse(self) -> None:
        """Gate and up by one product from now on; the parameters stay, as parts of the one piece."""
        self.gate_up = partial(gated_linear, weight=_in_one_piece(self.gate_proj, self.up_proj))

    def quantise(self, kind: str) -> None:
        """8 bits from now on, `fuse`d; the parameters are gone."""
        assert isinstance(self.down_proj, Linear)
        self.gate_up = _quantised(kind, self.gate_proj, self.up_proj, gated=True)
        self.down_proj = _quantised(kind, self.down_proj)

    def forward(self, x: Tensor) -> Tensor:
        gated = F.silu(self.gate_proj(x)) * self.up_proj(x) if self.gate_up is None else self.gate_up(x)
        return self.down_proj(gated)


class DecoderLayer(nn.Module):
    """One Llama layer. The Spec-VLA draft is one too, without the norm on its input."""

    def __init__(self, config: LlamaConfig, *, input_norm: bool = True) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps) if input_norm else nn.Identity()
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self,
        x: Tensor,
        change: Tensor | None,
        rotation: tuple[Tensor, Tensor],
        cache: KeyValueCache,
        layer: int,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """From x, or x + change, to two that are still to be added: a GPU adds and norms at once."""
        if isinstance(self.input_layernorm, RMSNorm) and change is not None:
            x, normed = self.input_layernorm.after_adding(x, change)
        else:
            x = x if change is None else x + change
            normed = self.input_layernorm(x)
        attended = self.self_attn(normed, rotation, cache, layer, mask)
        x, normed = self.post_attention_layernorm.after_adding(x, attended)
        return x, self.mlp(normed)


class LlamaModel(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = RotaryEmbedding(config)

    def forward(
        self, embeddings: Tensor, positions: Tensor, cache: KeyValueCache, mask: Tensor | None = None
    ) -> Tensor:
        """Run n new positions after the cache's committed ones, writing their keys and values behind them.

        Args:
            embeddings: (n, hidden).
            positions: (n,) integer positions for RoPE.
            cache: read up to its length, written behind it; committing is the caller's choice.
            mask: (n, length + n or more) True where attention is allowed; columns beyond length + n are False. None
                is plain causal attention, which needs an empty cache or n = 1.

        Returns:
            (n, hidden) features after the final norm.
        """
        if mask is None and cache.length and len(embeddings) > 1:
            raise ValueError("several positions after a filled cache need a mask")
        rotation = self.rotary(positions)
        if mask is not None:
            mask = attention_bias(mask, embeddings.dtype)
        x, change = embeddings, None
        for index, layer in enumerate(self.layers):
            x, change = layer(x, change, rotation, cache, index, mask)
        return self.norm(x) if change is None else self.norm.after_adding(x, change)[1]


class LanguageModel(nn.Module):
    """The decoder and its head, under the names of the public checkpoints."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.model = LlamaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
