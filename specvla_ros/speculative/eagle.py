"""Spec-VLA's learned draft: an EAGLE-2 head that grows a tree from the target's own features (arXiv 2507.22424)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from specvla_ros.errors import ConfigurationError
from specvla_ros.speculative.drafter import ALIGNMENT, Prefix
from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.config import ACTION_BINS, LlamaConfig
from specvla_ros.vla.llama import DecoderLayer, RotaryEmbedding, attention_bias
from specvla_ros.vla.model import OpenVLA


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """The EAGLE-2 tree.

    Attributes:
        nodes: nodes of the tree, the root included.
        depth: expansions after the first level.
        top_k: children of a node, and nodes expanded at each level.
        legacy: reproduce the released code's draft: tree nodes at positions 0, 1, 2, ... whatever the prefix, and
            probabilities over the whole vocabulary. Draft weights trained with the released code saw such positions.
    """

    nodes: int = 50
    depth: int = 4
    top_k: int = 8
    legacy: bool = False


class EagleHead(nn.Module):
    """One Llama layer without input norm over fc(embedding, feature); it predicts the target's next feature.

    At index i it reads (embedding i + 1, feature i) and predicts feature i + 1, which the target's own head turns
    into logits. Parameter names are the released draft's.
    """

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(config, input_norm=False)])
        self.rotary = RotaryEmbedding(config)

    def forward(
        self, embeddings: Tensor, features: Tensor, positions: Tensor, cache: KeyValueCache, mask: Tensor | None
    ) -> Tensor:
        """(n, hidden) embeddings and features at (n,) positions to (n, hidden) predicted features."""
        fused = self.fc(torch.cat([embeddings, features], dim=1))
        if mask is not None:
            mask = attention_bias(mask, fused.dtype)
        x, change = self.layers[0](fused, None, self.rotary(positions), cache, 0, mask)
        return x + change


class EagleDrafter:
    """Grows an EAGLE-2 tree: the most likely branches by joint probability.

    Args:
        target: its embedding and head are the draft's too.
        head: the trained layer.
        capacity: longest prefix, the seven action tokens included.
        tree: its size.

    Raises:
        ConfigurationError: a tree parameter out of its range, or a head of another width than the target.
        CheckpointError: the head knows fewer positions than `capacity`.
    """

    def __init__(self, target: OpenVLA, head: EagleHead, *, capacity: int, tree: TreeConfig) -> None:
        if tree.nodes < 1 or tree.depth < 0 or not 1 <= tree.top_k <= ACTION_BINS:
            raise ConfigurationError(
                f"draft tree of {tree.nodes} nodes, depth {tree.depth}, top_k {tree.top_k}: expected nodes >= 1, "
                f"depth >= 0 and top_k of 1..{ACTION_BINS}"
            )
        if head.config.hidden_size != target.config.llama.hidden_size:
            raise ConfigurationError(
                f"the draft's hidden size is {head.config.hidden_size} but the target's is "
                f"{target.config.llama.hidden_size}: this draft was trained for another model"
            )
        head.config.require_positions(capacity, "the draft's config.json")
        self._target = target
        self.head = head
        self._tree = tree
        self._cache = KeyValueCache(
            1,
            head.config.num_attention_heads,
            capacity + tree.top_k * tree.depth + ALIGNMENT,
            head.config.head_size,
            dtype=target.dtype,
            device=target.device,
        )

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """The best `nodes` - 1 candidates of at most min(`depth`, expansions + 1) levels, under the root."""
        levels = min(depth, self._tree.depth + 1)
        if levels == 0 or self._tree.nodes == 1:
            return DraftTree.bare(prefix.newest)
        key = "draft", id(self), prefix.prompt_slots, len(prefix.tokens), levels
        return DraftTree.from_parts(*prefix.runner.run(key, lambda: self._grow(prefix, levels)))

    def clear(self) -> None:
        """The next action starts from its own prefill; its masked slots hold what was there."""
        self._cache.clear()

    def _grow(self, prefix: Prefix, levels: int) -> tuple[Tensor, ...]:
        """The parts of the tree."""
        feature = self._read(prefix)
        pool = self._expand(prefix, feature, levels)
        return self._best(prefix.newest, pool, levels).parts

    def _read(self, prefix: Prefix) -> Tensor:
        """Run committed pairs with the TARGET's features through the head; the (1, hidden) output of the last.

        At the action's first token these are image and prompt, whose keys and values stay; later the action's tokens,
        all of them: a few rows cost no more than one, and what is computed depends on nothing but how many they are.
        """
        start = 0 if len(prefix.tokens) == 1 else prefix.prompt_slots
        end = prefix.length
        positions, mask = torch.arange(end - start, device=prefix.device), None
        self._cache.truncate(start)
        if start:
            mask = prefix.mask(start, positions <= positions[:, None])
            positions = prefix.prompt_length + positions
        outputs = self.head(prefix.next_embeddings[start:end], prefix.features[start:end], positions, self._cache, mask)
        self._cache.commit(end - start)
        return outputs[-1:] if start else prefix.last_of_prompt(outputs)

    def _expand(self, prefix: Prefix, feature: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates level by level: (m,) tokens, parents (pool indices, 0 the root) and joint log-probabilities."""
        device, length = feature.device, self._cache.length
        score, token = (best[0] for best in self._children(feature))
        tokens, scores = [token], [score]
        parents = [torch.zeros_like(token)]
        first_position = torch.zeros_like(prefix.position) if self._tree.legacy else prefix.position
        frontier = torch.arange(len(token), device=device)
        frontier_features = feature.expand(len(token), -1)
        frontier_mask = torch.eye(len(token), dtype=torch.bool, device=device)
        pool_start = 1
        for level in range(levels - 1):
            outputs = self.head(
                self._target.embed_tokens(token),
                frontier_features,
                (first_position + level).expand(len(token)),
                self._cache,
                prefix.mask(length, frontier_mask),
            )
            self._cache.commit(len(token))
            child_scores, child_tokens = self._children(outputs)
            joint = (score[:, None] + child_scores).flatten()
            tokens.append(child_tokens.flatten())
            scores.append(joint)
            parents.append((pool_start + frontier).repeat_interleave(self._tree.top_k))
            pool_start += len(tokens[-2])
            score, frontier = joint.topk(self._tree.top_k)
            token = tokens[-1][frontier]
            parent_in_frontier = frontier // self._tree.top_k
            frontier_features = outputs[parent_in_frontier]
            frontier_mask = torch.cat(
                [frontier_mask[parent_in_frontier], torch.eye(len(token), dtype=torch.bool, device=device)], dim=1
            )
        return torch.cat(tokens), torch.cat(parents), torch.cat(scores)

    def _children(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(n, hidden) predicted features to the (n, top_k) best log-probabilities and their token ids."""
        if self._tree.legacy:
            logits, first_id = self._target.logits(features), 0
        else:
            logits, first_id = self._target.action_logits(features), self._target.config.first_action_id
        scores, index = logits.log_softmax(dim=-1).topk(self._tree.top_k)
        return scores, index + first_id

    def _best(self, root: Tensor, pool: tuple[Tensor, Tensor, Tensor], levels: int) -> DraftTree:
        """Keep the best candidates; a parent is never less likely than its child, so it survives with it."""
        tokens, parents, scores = pool
        # Stable, so that of equal scores the parent, which stands earlier, is kept first.
        kept = scores.sort(descending=True, stable=True).indices[: self._tree.nodes - 1].sort().values + 1
        new_index = torch.zeros(len(tokens) + 1, dtype=torch.long, device=tokens.device)
        new_index[kept] = torch.arange(1, len(kept) + 1, device=tokens.device)
        return DraftTree.from_parents(
            torch.cat([root, tokens[kept - 1]]),
            torch.cat([torch.zeros_like(kept[:1]), new_index[parents[kept - 1]]]),
            depth=levels,
        )
