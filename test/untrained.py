"""A small model of OpenVLA's layout with random weights, for tests of what a checkpoint must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from specvla_ros.vla.checkpoint import write_checkpoint
from specvla_ros.vla.config import LlamaConfig, OpenVLAConfig, VisionConfig
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import write_small_tokenizer

SEED = 0

CONFIG = OpenVLAConfig(
    dinov2=VisionConfig(width=96, depth=5, heads=3, mlp_width=384, prefix_tokens=5, layer_scale=True),
    siglip=VisionConfig(width=96, depth=5, heads=3, mlp_width=358, prefix_tokens=0, layer_scale=False),
    llama=LlamaConfig(hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4),
)
MOTION_SCALE = (0.3, 0.3, 0.3, 0.1, 0.1, 0.1)
"""Largest motion in LIBERO's controller units: small, so that a random policy wanders and does not thrash."""


def write_untrained_checkpoint(directory: Path) -> None:
    """Write the model, its tokenizer and its norm stats in OpenVLA's layout."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in OpenVLA(CONFIG).state_dict().items()}
    tensors = {name: _random_weight(name, shape, generator).to(torch.bfloat16) for name, shape in shapes.items()}
    write_checkpoint(directory, CONFIG.to_dict(), tensors, _norm_stats(), extra_files=write_small_tokenizer)


def _random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Gains 1, biases 0, matrices scaled to keep the signal's size."""
    if len(shape) == 1:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    fan_in = shape[1:].numel()
    scale = 1.0 if "embed" in name or "token" in name else fan_in**-0.5
    return torch.randn(shape, generator=generator) * scale


def _norm_stats() -> dict[str, Any]:
    high = [*MOTION_SCALE, 1.0]
    low = [*(-scale for scale in MOTION_SCALE), 0.0]
    action = {"q01": low, "q99": high, "mask": [True] * 6 + [False]}
    return {"libero_untrained": {"action": action, "num_trajectories": 0, "num_transitions": 0}}
