"""Drafts without weights: a robot's next action is often close to its last ones."""

from __future__ import annotations

from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.speculative.drafter import Prefix
from specvla_ros.speculative.tree import DraftTree


class HoldDrafter:
    """Drafts the last action again, as one path. What KERV's released filter (gain 0.999) amounts to."""

    def __init__(self) -> None:
        self._last: list[int] = []

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """The last action's tokens from the first undecided dimension on; the bare root in a new episode."""
        first = len(prefix.tokens)
        following = self._last[first : first + depth]
        if not following:
            return DraftTree.bare(prefix.newest)
        return DraftTree.path(prefix.tokens[-1], following, prefix.device)

    def end_action(self, tokens: list[int]) -> None:
        """Remember the action."""
        self._last = tokens

    def reset(self) -> None:
        """Forget it."""
        self._last = []


class LinearDrafter:
    """Drafts the motion that goes on changing as it last did (constant velocity in bins); the gripper is held.

    After one action only, it holds that one.
    """

    def __init__(self, action_ids: range) -> None:
        self._ids = action_ids
        self._hold = HoldDrafter()
        self._last: list[int] = []

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """The extrapolated tokens from the first undecided dimension on."""
        return self._hold.draft(prefix, depth)

    def end_action(self, tokens: list[int]) -> None:
        """Extrapolate from the last two actions."""
        last = self._last or tokens
        moved = [self._clip(2 * new - old) for new, old in zip(tokens, last, strict=True)]
        self._hold.end_action(moved[: ACTION_LENGTH - 1] + tokens[ACTION_LENGTH - 1 :])
        self._last = tokens

    def reset(self) -> None:
        """Forget both."""
        self._hold.reset()
        self._last = []

    def _clip(self, token: int) -> int:
        return min(max(token, self._ids[0]), self._ids[-1])
