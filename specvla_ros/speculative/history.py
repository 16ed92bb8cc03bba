"""Drafts without weights: a robot's next action is often close to its last ones."""

from __future__ import annotations

from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.speculative.drafter import Prefix
from specvla_ros.speculative.tree import DraftTree


class HoldDrafter:
    """Drafts the last action again, as one path. What KERV's released filter (gain 0.999) amounts to."""

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """The last action's tokens from the first undecided dimension on; the bare root in a new episode."""
        return _path(prefix, prefix.history[-1], depth) if prefix.history else DraftTree.bare(prefix.newest)

    def clear(self) -> None:
        """Nothing is kept."""


class LinearDrafter:
    """Drafts the motion that goes on changing as it last did (constant velocity in bins); the gripper is held.

    After one action only, it holds that one.
    """

    def __init__(self, action_ids: range) -> None:
        self._ids = action_ids

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """The extrapolated tokens from the first undecided dimension on; the bare root in a new episode."""
        if not prefix.history:
            return DraftTree.bare(prefix.newest)
        last, before = prefix.history[-1], prefix.history[-2 if len(prefix.history) > 1 else -1]
        moved = [self._clip(2 * new - old) for new, old in zip(last, before, strict=True)]
        return _path(prefix, moved[: ACTION_LENGTH - 1] + last[ACTION_LENGTH - 1 :], depth)

    def clear(self) -> None:
        """Nothing is kept."""

    def _clip(self, token: int) -> int:
        return min(max(token, self._ids[0]), self._ids[-1])


def _path(prefix: Prefix, action: list[int], depth: int) -> DraftTree:
    """At most `depth` of an action's tokens, from the first undecided dimension on."""
    first = len(prefix.tokens)
    following = action[first : first + depth]
    return DraftTree.path(prefix.newest, following) if following else DraftTree.bare(prefix.newest)
