"""Models with the exact shapes of real ones and random weights: they take as long, and know nothing."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from specvla_ros.errors import ConfigurationError
from specvla_ros.runtime import CAPACITY
from specvla_ros.speculative.drafter import Drafter
from specvla_ros.speculative.eagle import EagleDrafter, EagleHead, TreeConfig
from specvla_ros.speculative.history import HoldDrafter, LinearDrafter
from specvla_ros.speculative.merged import MergedDrafter
from specvla_ros.vla.config import LlamaConfig, OpenVLAConfig, VisionConfig
from specvla_ros.vla.llama import fuse_projections, lay_out_projections
from specvla_ros.vla.model import OpenVLA

M = TypeVar("M", bound=nn.Module)

SEED = 0
SCALE = 0.02
"""Standard deviation of every matrix, as Llama's own start; the norms between them keep the signal's size."""
SIZES = {
    "7b": OpenVLAConfig(),
    "tiny": OpenVLAConfig(
        dinov2=VisionConfig(width=32, depth=3, heads=2, mlp_width=64, prefix_tokens=5, layer_scale=True),
        siglip=VisionConfig(width=32, depth=3, heads=2, mlp_width=64, prefix_tokens=0, layer_scale=False),
        llama=LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2),
    ),
}


def random_target(config: OpenVLAConfig, dtype: torch.dtype, device: torch.device, weights: str = "full") -> OpenVLA:
    """An OpenVLA of these sizes, drawn on the device itself: 7B would take minutes on a CPU.

    Args:
        weights: see `load_policy`.
    """
    with torch.device("meta"):
        target = OpenVLA(config)
    target = _with_random_weights(target, dtype, device)
    return lay_out_projections(target, device, weights)


def random_drafter(name: str, target: OpenVLA) -> Drafter:
    """hold, linear, eagle (an untrained head of the target's size), or several joined by +.

    Raises:
        ConfigurationError: another draft; a trained one fits only the model that it was trained for.
    """
    parts = [part.strip() for part in name.split("+")]
    drafters = [_drafter(part, target) for part in parts]
    return drafters[0] if len(drafters) == 1 else MergedDrafter(drafters)


def _drafter(name: str, target: OpenVLA) -> Drafter:
    if name == "hold":
        return HoldDrafter()
    if name == "linear":
        return LinearDrafter(target.config.action_ids)
    if name != "eagle":
        raise ConfigurationError(f"draft {name!r} does not go with random weights; expected hold, linear or eagle")
    return EagleDrafter(target, fuse_projections(random_head(target)), capacity=CAPACITY, tree=TreeConfig())


def random_head(target: OpenVLA) -> EagleHead:
    """A learned draft's layer of the target's size, where the target is."""
    with torch.device("meta"):
        head = EagleHead(target.config.llama)
    return _with_random_weights(head, target.dtype, target.device)


def _with_random_weights(module: M, dtype: torch.dtype, device: torch.device) -> M:
    generator = torch.Generator(device).manual_seed(SEED)
    tensors = {name: _weight(tensor.shape, generator, dtype, device) for name, tensor in module.state_dict().items()}
    module.load_state_dict(tensors, assign=True)
    return module.to(device, dtype).eval().requires_grad_(False)


def _weight(shape: torch.Size, generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gains and biases are 1: neither changes how long anything takes."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=dtype, device=device)
    return torch.randn(shape, generator=generator, dtype=dtype, device=device).mul_(SCALE)
