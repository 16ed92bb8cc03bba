"""The draft tree: candidate continuations that share prefixes, verified in one target forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class DraftTree:
    """n nodes in an order where a parent comes before its children; node 0, the root, is already decided.

    Attributes:
        tokens: (n,) token ids.
        parents: (n,) index of each node's parent; the root is its own.
        ancestors: (n, n) True where column is row's ancestor or row itself: the tree's attention mask.
        depths: (n,) distance from the root.
    """

    tokens: Tensor
    parents: Tensor
    ancestors: Tensor
    depths: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def from_parents(cls, tokens: Tensor, parents: Tensor, depth: int) -> DraftTree:
        """Build a tree no deeper than `depth` from (n,) tokens and (n,) parent indices, without leaving the device."""
        ancestors = torch.eye(len(tokens), dtype=torch.bool, device=tokens.device)
        for _ in range(depth):
            ancestors = ancestors | ancestors[parents]
        return cls(tokens, parents, ancestors, ancestors.sum(dim=1) - 1)

    @classmethod
    def path(cls, root: int, tokens: Sequence[int], device: torch.device) -> DraftTree:
        """One chain of tokens behind the root; none of them gives the bare root."""
        nodes = torch.tensor([root, *tokens], device=device)
        parents = (torch.arange(len(nodes), device=device) - 1).clamp(min=0)
        return cls.from_parents(nodes, parents, depth=len(tokens))


def merge(trees: Sequence[DraftTree]) -> DraftTree:
    """Hang the trees' branches under one root.

    Equal branches stay apart: finding them would stop the device for a few nodes saved, and a duplicate changes no
    outcome.
    """
    tokens, parents = [trees[0].tokens[:1]], [trees[0].parents[:1]]
    offset = 0
    for tree in trees:
        tokens.append(tree.tokens[1:])
        parents.append(torch.where(tree.parents[1:] == 0, 0, tree.parents[1:] + offset))
        offset += len(tree) - 1
    size = offset + 1
    ancestors = torch.zeros(size, size, dtype=torch.bool, device=trees[0].tokens.device)
    ancestors[:, 0] = True
    start = 1
    for tree in trees:
        end = start + len(tree) - 1
        ancestors[start:end, start:end] = tree.ancestors[1:, 1:]
        start = end
    return DraftTree(torch.cat(tokens), torch.cat(parents), ancestors, ancestors.sum(dim=1) - 1)
