"""The small target: OpenVLA's layout in sizes that a desktop trains."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specvla_ros.vla.checkpoint import write_checkpoint
from specvla_ros.vla.config import DINOV2_LARGE, SIGLIP_SO400M, LlamaConfig, OpenVLAConfig, VisionConfig
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import EMPTY_ID, write_small_tokenizer

HEAD_SIZE, VISION_HEAD_SIZE = 32, 64
"""Of the language model's attention and the towers'; the widths are multiples of them. Few heads cost less on a CPU."""
INIT_STD = 0.02
SMALL_VOCABULARY = 1024
"""Ids that `write_small_tokenizer` may hand out."""


@dataclass(frozen=True, slots=True)
class TargetSizes:
    """Widths and depths; the depth of a tower counts its last block, which OpenVLA's layout has but never runs.

    DINOv2's tower does the seeing. SigLIP's, which cannot be left out of the layout, is kept small.
    """

    vision_width: int = 128
    vision_depth: int = 5
    hidden_size: int = 128
    layers: int = 4
    siglip_width: int = 64
    siglip_depth: int = 2

    def config(self) -> OpenVLAConfig:
        """The model's configuration; raises CheckpointError for a width that is no multiple of its heads."""
        hidden = self.hidden_size
        return OpenVLAConfig(
            dinov2=_tower(DINOV2_LARGE, self.vision_width, self.vision_depth),
            siglip=_tower(SIGLIP_SO400M, self.siglip_width, self.siglip_depth),
            llama=LlamaConfig(
                hidden_size=hidden,
                intermediate_size=hidden * 11 // 4,  # Llama-2's ratio, 11008 / 4096
                num_hidden_layers=self.layers,
                num_attention_heads=max(hidden // HEAD_SIZE, 1),
                max_position_embeddings=512,
            ),
        )


def build_target(config: OpenVLAConfig) -> OpenVLA:
    """A target to train, from torch's present random state.

    Vocabulary rows that neither the small tokenizer nor the actions can produce are zero, and stay so: 30 000 of
    32 064, which then cost next to nothing in a compressed file.
    """
    target = OpenVLA(config)
    for name, parameter in target.named_parameters():
        if parameter.ndim > 1:
            is_table = ("embed" in name and "patch_embed" not in name) or "token" in name
            std = INIT_STD if is_table else parameter[0].numel() ** -0.5
            nn.init.trunc_normal_(parameter, std=std, a=-2.0 * std, b=2.0 * std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    used = torch.zeros(config.llama.vocab_size, 1)
    used[:SMALL_VOCABULARY] = 1.0
    used[EMPTY_ID] = 1.0
    used[config.first_action_id :] = 1.0
    language = target.language_model
    with torch.no_grad():
        language.model.embed_tokens.weight.mul_(used)
        language.lm_head.weight.mul_(used)
    return target


def write_target(
    directory: Path, config: OpenVLAConfig, state: Mapping[str, Tensor], norm_stats: Mapping[str, Any]
) -> None:
    """Write the weights as a checkpoint that `load_policy` reads, in place of one that is there."""
    tensors = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in state.items()}
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        write_checkpoint(work / "new", config.to_dict(), tensors, norm_stats, extra_files=write_small_tokenizer)
        if directory.exists():
            os.rename(directory, work / "old")
        os.rename(work / "new", directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _tower(released: VisionConfig, width: int, depth: int) -> VisionConfig:
    """The released tower in another size, with heads of `VISION_HEAD_SIZE`."""
    return released.resized(width=width, depth=depth, heads=max(width // VISION_HEAD_SIZE, 1))
