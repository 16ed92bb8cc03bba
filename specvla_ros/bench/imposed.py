"""Decoding with accepted lengths that were decided before: all the work of speculation, whatever the weights are.

What is committed is then not the model's answer, and rows of this kind say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

import torch
from torch import Tensor

from specvla_ros.bench.distribution import Rounds
from specvla_ros.policy import DecodeStats, Thresholds
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import Drafter, History, Prefix
from specvla_ros.speculative.stopwatch import Stopwatch
from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.graphs import Runner
from specvla_ros.vla.model import OpenVLA


class DeepDrafter:
    """Another drafter's nodes in a tree that is as deep as a round can use: one chain, the rest below the root.

    An untrained draft finds no continuation better than another, so its tree stays flat and no long path exists in it.
    Shapes are made once, so that nothing is added to what drafting costs.
    """

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self._shapes: dict[tuple[int, int], DraftTree] = {}

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """As many nodes as the other drafter's tree has, with its tokens."""
        tree = self.drafter.draft(prefix, depth)
        key = (len(tree), min(depth, len(tree) - 1))
        if key not in self._shapes:
            nodes = torch.arange(len(tree), device=tree.tokens.device)
            parents = torch.where(nodes <= key[1], nodes - 1, 0).clamp(min=0)
            self._shapes[key] = DraftTree.from_parents(tree.tokens, parents, depth=key[1])
        shape = self._shapes[key]
        return DraftTree(tree.tokens, shape.parents, shape.ancestors, shape.depths)

    def clear(self) -> None:
        """Clear the other drafter."""
        self.drafter.clear()


class ImposedDecoder(SpeculativeDecoder):
    """Accepts what `actions` say, one action after the other and round again, as far as the drafts reach."""

    def __init__(
        self,
        target: OpenVLA,
        drafter: Drafter,
        actions: Sequence[Rounds],
        *,
        capacity: int,
        runner: Runner | None = None,
    ) -> None:
        super().__init__(target, DeepDrafter(drafter), capacity=capacity, runner=runner)
        self._actions = cycle(actions)
        self._rounds: Iterator[int] = iter(())
        self._wanted = torch.zeros((), dtype=torch.long, device=target.device)

    def decode_patches(
        self,
        input_ids: Tensor,
        patches: Tensor,
        thresholds: Thresholds,
        history: History | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> tuple[list[int], DecodeStats]:
        """See `SpeculativeDecoder`; the thresholds decide nothing."""
        self._rounds = iter(next(self._actions))
        return super().decode_patches(input_ids, patches, thresholds, history, stopwatch)

    def _verify(self, tree: DraftTree) -> list[int]:
        self._wanted.fill_(next(self._rounds, 0))
        return super()._verify(tree)

    def _accepted_node(self, tree: DraftTree, distance: Tensor, limits: Tensor) -> Tensor:
        super()._accepted_node(tree, distance, limits)  # a real round pays for it
        return torch.where(tree.depths <= self._wanted, tree.depths, -1).argmax()
