"""What weights and decoding hold in memory, from the shapes alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from specvla_ros.runtime import CAPACITY
from specvla_ros.speculative.decode import MAX_TREE_NODES
from specvla_ros.speculative.drafter import ALIGNMENT
from specvla_ros.speculative.eagle import EagleHead, TreeConfig
from specvla_ros.vla.config import OpenVLAConfig
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.quantised import QuantisedLinear


def weight_tensors(module: nn.Module) -> Iterator[Tensor]:
    """A module's weights, those of 8 bits included."""
    yield from module.parameters()
    for part in module.modules():
        if isinstance(part, QuantisedLinear):
            yield part.values


def module_bytes(module: nn.Module) -> int:
    """Of its weights."""
    return sum(tensor.nbytes for tensor in weight_tensors(module))


def decoding_bytes(config: OpenVLAConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Weights of a target of these sizes and of its Spec-VLA draft, and the keys and values of both.

    Activations (the largest is the prefill's, some ten megabytes at 7B) and CUDA's own context come on top.
    """
    llama, tree = config.llama, TreeConfig()
    with torch.device("meta"):
        modules = [OpenVLA(config), EagleHead(llama)]
    weights = sum(parameter.numel() for module in modules for parameter in module.parameters())
    positions = llama.num_hidden_layers * (CAPACITY + MAX_TREE_NODES) + CAPACITY + tree.top_k * tree.depth + ALIGNMENT
    return (weights + 2 * positions * llama.hidden_size) * dtype.itemsize
