"""Small random models for property tests: float64, so that no rounding can decide between two tokens."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from specvla_ros.speculative.drafter import History, Prefix
from specvla_ros.speculative.eagle import EagleHead
from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.config import LlamaConfig, OpenVLAConfig, VisionConfig
from specvla_ros.vla.model import OpenVLA

M = TypeVar("M", bound=torch.nn.Module)

PROMPT_IDS = 60
"""Ids 0..59 of the small vocabulary are text; the 256 action ids follow at 64."""


def random_target(seed: int, layers: int = 2, hidden_size: int = 16) -> OpenVLA:
    """A target whose answers depend strongly on the image, the prompt and every earlier token."""
    torch.manual_seed(seed)
    config = OpenVLAConfig(
        dinov2=VisionConfig(width=8, depth=2, heads=2, mlp_width=16, prefix_tokens=5, layer_scale=True),
        siglip=VisionConfig(width=8, depth=2, heads=2, mlp_width=16, prefix_tokens=0, layer_scale=False),
        llama=random_llama_config(layers, hidden_size),
    )
    return randomise(OpenVLA(config))


def random_head(seed: int, hidden_size: int = 16) -> EagleHead:
    """An untrained draft for such a target."""
    torch.manual_seed(seed)
    return randomise(EagleHead(random_llama_config(1, hidden_size)))


def random_llama_config(layers: int, hidden_size: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        vocab_size=384,
        max_position_embeddings=600,
    )


def randomise(module: M) -> M:
    """Weights large enough that neighbouring inputs get different answers."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.double().eval()


def greedy_tokens(
    target: OpenVLA, input_ids: Tensor, pixel_values: Tensor, forced: list[int] | None = None
) -> list[int]:
    """The target's argmax for each of the seven positions, with no cache and no tree: everything is read anew.

    Args:
        forced: the tokens put behind the prompt; the target's own answers when None.
    """
    answers: list[int] = []
    with torch.inference_mode():
        patches = target.project_image(pixel_values)
        for position in range(7):
            context = (answers if forced is None else forced)[:position]
            embeddings = target.embed_prompt(torch.cat([input_ids, torch.tensor(context, dtype=torch.long)]), patches)
            features = target(embeddings, torch.arange(len(embeddings)), target.new_cache(len(embeddings)))
            answers.append(int(target.predict_action_tokens(features[-1:])))
    return answers


class GuessingDrafter:
    """Random trees of tokens near the greedy answer, so that long and short paths, ties and misses all occur."""

    def __init__(self, seed: int, guide: list[int], nodes: int, spread: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._guide = guide
        self._nodes = nodes
        self._spread = spread

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        tokens, parents, depths = [int(prefix.newest)], [0], [0]
        for _ in range(self._nodes if depth else 0):
            open_nodes = [index for index, level in enumerate(depths) if level < depth]
            parent = open_nodes[self._random(len(open_nodes))]
            position = len(prefix.tokens) + depths[parent]
            tokens.append(self._guide[position] + self._random(2 * self._spread + 1) - self._spread)
            parents.append(parent)
            depths.append(depths[parent] + 1)
        return DraftTree.from_parents(torch.tensor(tokens), torch.tensor(parents), depth)

    def clear(self) -> None:
        pass

    def _random(self, bound: int) -> int:
        return int(torch.randint(bound, (), generator=self._generator))


def after(*actions: list[int]) -> History:
    """An episode whose last actions were these."""
    history = History()
    history.extend(actions)
    return history


def random_inputs(seed: int, length: int = 6) -> tuple[Tensor, Tensor]:
    """Prompt ids (length,) and pixel values (1, 6, 224, 224)."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, PROMPT_IDS, (length,), generator=generator)
    ids[0] = 1
    return ids, torch.randn(1, 6, 224, 224, generator=generator, dtype=torch.float64)
