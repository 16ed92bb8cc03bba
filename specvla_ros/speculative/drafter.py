"""What a draft is asked for: a tree of candidate tokens behind the last committed one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.model import OpenVLA


class Prefix:
    """The committed positions of the action being decoded: what a draft may look at.

    Attributes:
        embeddings: (capacity, hidden) the target's input embeddings; `length` + 1 are valid, the last is the newest
            committed token's, which the target has not read yet.
        features: (capacity, hidden) the target's hidden states after its final norm; `length` are valid.
        length: positions in the target's cache.
        tokens: action tokens committed so far, at least one.
    """

    def __init__(self, target: OpenVLA, capacity: int) -> None:
        self.target = target
        weight = target.language_model.lm_head.weight
        self.embeddings = weight.new_zeros(capacity, weight.shape[1])
        self.features = weight.new_zeros(capacity, weight.shape[1])
        self.length = 0
        self.tokens: list[int] = []

    def begin(self, embeddings: Tensor, features: Tensor, first_token: int) -> None:
        """Start an action: the (n, hidden) embeddings and features of its prompt, and the token they predict."""
        count = len(embeddings)
        self.embeddings[:count] = embeddings
        self.features[:count] = features
        self.length = count
        self.tokens = [first_token]
        self._embed_from(count, self.tokens)

    def extend(self, features: Tensor, tokens: list[int]) -> None:
        """Commit an accepted path of m nodes: their (m, hidden) features, and the m tokens that follow them."""
        self.features[self.length : self.length + len(features)] = features
        self._embed_from(self.length + 1, tokens)
        self.length += len(features)
        self.tokens += tokens

    def _embed_from(self, position: int, tokens: list[int]) -> None:
        ids = torch.tensor(tokens, device=self.embeddings.device)
        self.embeddings[position : position + len(tokens)] = self.target.embed_tokens(ids)


class Drafter(Protocol):
    """Proposes continuations; whatever it proposes, the target decides."""

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """A tree no deeper than `depth` whose root is `prefix.tokens[-1]`."""

    def end_action(self, tokens: list[int]) -> None:
        """The seven tokens of an action are decided."""

    def reset(self) -> None:
        """A new episode begins: forget earlier actions."""
