"""The two vision transformers and the projector, with the timm parameter names that OpenVLA checkpoints carry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.vla import kernels
from specvla_ros.vla.attention import attend
from specvla_ros.vla.config import IMAGE_SIZE, PATCH_SIZE, PATCHES, VisionConfig

LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Full self-attention with one fused projection for queries, keys and values."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        queries, keys, values = (
            self.qkv(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        mixed = attend(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """Two layers with the exact (erf) GELU: the tanh approximation is 1.3e-3 off."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """DINOv2's per-channel gain; OpenVLA stores it as `scale_factor`, not timm's `gamma`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config.width) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(config)
        self.ls2 = LayerScale(config.width) if config.layer_scale else nn.Identity()

    def forward(self, x: Tensor, change: Tensor | None, scale: nn.Module) -> tuple[Tensor, Tensor]:
        """From x, or x + scale(change), to an x and a change to be added by `ls2`: a GPU adds and norms at once."""
        if change is None:
            normed = self.norm1(x)
        else:
            x, normed = _add_and_norm(x, change, scale, self.norm1)
        x, normed = _add_and_norm(x, self.attn(normed), self.ls1, self.norm2)
        return x, self.mlp(normed)


def _add_and_norm(x: Tensor, change: Tensor, scale: nn.Module, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """x + scale(change), and its norm."""
    if kernels.usable(x, dimensions=3):
        factor = scale.scale_factor if isinstance(scale, LayerScale) else None
        return kernels.add_layer_norm(x, change, factor, norm.weight, norm.bias, norm.eps)
    x = x + scale(change)
    return x, norm(x)


class PatchEmbedding(nn.Module):
    """14 x 14 patches to vectors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(pixels).flatten(2).transpose(1, 2)


class VisionTower(nn.Module):
    """A vision transformer up to its last block but one, which is all that OpenVLA reads.

    The last block, the final norm and the attention pool of a checkpoint have no parameter here and are not loaded.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.prefix_tokens = config.prefix_tokens
        if config.prefix_tokens:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
            self.reg_token = nn.Parameter(torch.zeros(1, config.prefix_tokens - 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, PATCHES, config.width))
        self.patch_embed = PatchEmbedding(config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth - 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 224, 224) normalised pixels to (B, 256, width) patch features."""
        x = (self.patch_embed(pixels) + self.pos_embed).contiguous()
        if self.prefix_tokens:
            prefix = torch.cat([self.cls_token, self.reg_token], dim=1)
            x = torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1)
        change: Tensor | None = None
        scale: nn.Module = nn.Identity()
        for block in self.blocks:
            x, change = block(x, change, scale)
            scale = cast(Block, block).ls2
        x = x if change is None else x + scale(change)
        return x[:, self.prefix_tokens :]


class VisionBackbone(nn.Module):
    """DINOv2 (`featurizer`) and SigLIP (`fused_featurizer`) side by side."""

    def __init__(self, dinov2: VisionConfig, siglip: VisionConfig) -> None:
        super().__init__()
        self.featurizer = VisionTower(dinov2)
        self.fused_featurizer = VisionTower(siglip)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 6, 224, 224), DINOv2's channels first, to (B, 256, dinov2 + siglip width)."""
        if pixel_values.shape[1:] != (6, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"pixel_values is {tuple(pixel_values.shape)}; expected (B, 6, {IMAGE_SIZE}, {IMAGE_SIZE})"
            )
        dinov2_pixels, siglip_pixels = pixel_values.split(3, dim=1)
        with _at_the_same_time(pixel_values.device):
            siglip = self.fused_featurizer(siglip_pixels)
        dinov2 = self.featurizer(dinov2_pixels)
        _wait_for_the_other(pixel_values.device)
        return torch.cat([dinov2, siglip], dim=2)


@contextmanager
def _at_the_same_time(device: torch.device) -> Iterator[None]:
    """On a GPU, work started inside runs beside what follows: neither tower alone keeps a large GPU busy."""
    if device.type != "cuda":
        yield
        return
    side = _side_stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        yield


def _wait_for_the_other(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).wait_stream(_side_stream(device))


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class Projector(nn.Module):
    """OpenVLA's fused-GELU MLP from patch features to the language model's width."""

    def __init__(self, vision_width: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_width, 4 * vision_width)
        self.fc2 = nn.Linear(4 * vision_width, hidden_size)
        self.fc3 = nn.Linear(hidden_size, hidden_size)

    def forward(self, patches: Tensor) -> Tensor:
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(patches)))))
