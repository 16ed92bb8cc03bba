"""No draft: plain greedy decoding, one token a forward."""

from __future__ import annotations

from specvla_ros.speculative.drafter import Prefix
from specvla_ros.speculative.tree import DraftTree


class NoDrafter:
    """Proposes nothing, so that every round is one autoregressive step."""

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """The bare root."""
        return DraftTree.bare(prefix.newest)

    def clear(self) -> None:
        """Nothing is kept."""
