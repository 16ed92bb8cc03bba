"""Several drafts in one tree: the target checks them together."""

from __future__ import annotations

from collections.abc import Sequence

from specvla_ros.speculative.drafter import Drafter, Prefix
from specvla_ros.speculative.tree import DraftTree, merge


class MergedDrafter:
    """Asks every drafter and hangs their branches under one root."""

    def __init__(self, drafters: Sequence[Drafter]) -> None:
        self.drafters = drafters

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """All drafters' trees as one."""
        return merge([drafter.draft(prefix, depth) for drafter in self.drafters])

    def clear(self) -> None:
        """Clear every drafter."""
        for drafter in self.drafters:
            drafter.clear()
