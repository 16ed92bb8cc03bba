"""The small target: OpenVLA's layout in sizes that a desktop trains."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specvla_ros.vla.checkpoint import write_checkpoint
from specvla_ros.vla.config import OpenVLAConfig
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import EMPTY_ID, write_small_tokenizer

INIT_STD = 0.02
SMALL_VOCABULARY = 1024
"""Ids that `write_small_tokenizer` may hand out."""


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
