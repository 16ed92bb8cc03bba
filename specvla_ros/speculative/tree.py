"""The draft tree: candidate continuations that share prefixes, verified in one target forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

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
        is_chain: whether it is known to have no branches: each node is the parent of the next.
    """

    tokens: Tensor
    parents: Tensor
    ancestors: Tensor
    depths: Tensor
    is_chain: bool = False

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
    def path(cls, root: Tensor, tokens: Sequence[int]) -> DraftTree:
        """One chain of tokens behind the root, a (1,) token id."""
        following = torch.tensor(tokens, dtype=root.dtype).to(root.device, non_blocking=True)  # the host goes on
        return cls.chain(torch.cat([root, following]))

    @classmethod
    def bare(cls, root: Tensor) -> DraftTree:
        """Nothing but the root, a (1,) token id."""
        return cls.chain(root)

    @classmethod
    def chain(cls, tokens: Tensor) -> DraftTree:
        """(n,) tokens behind each other, the root first."""
        return cls(tokens, *_chain(len(tokens), tokens.device), is_chain=True)

    @classmethod
    def from_parts(cls, *parts: Tensor) -> DraftTree:
        """What `parts` was taken from."""
        if len(parts) == 1:
            return cls.chain(parts[0])
        tokens, parents, ancestors, depths = parts
        return cls(tokens, parents, ancestors, depths)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """What makes it: the tokens of a chain, all attributes of another tree."""
        return (self.tokens,) if self.is_chain else (self.tokens, self.parents, self.ancestors, self.depths)

    def path_to(self, node: Tensor, longest: int) -> Tensor:
        """(longest + 1,) nodes by depth on the way from the root to the (1,) `node`, which is repeated at the end."""
        depth = torch.arange(longest + 1, device=self.depths.device).minimum(self.depths[node])
        on_path = self.ancestors[node] & (self.depths == depth[:, None])
        return on_path.int().argmax(dim=1)


@cache
def _chain(length: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Parents, ancestors and depths of a tree without branches: always the same, so they are made once."""
    depths = torch.arange(length, device=device)
    ancestors = depths <= depths[:, None]
    return (depths - 1).clamp(min=0), ancestors, depths


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
