"""What a draft is asked for: a tree of candidate tokens behind the last committed one."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.graphs import Runner
from specvla_ros.vla.model import OpenVLA

ALIGNMENT = 16
"""A padded prompt's masks are a multiple of this wide: GPU attention copies others in each layer."""


UNREAD = -1
"""Stands for a token that is decided, on the device, and that the host has not waited for."""
LAST_ACTIONS = 2
"""What the drafts without weights look back at."""


class History(deque[list[int]]):
    """The last actions of an episode, the newest at the end: each its seven token ids.

    It belongs to a policy and not to a drafter, so that policies can share one decoder.
    """

    def __init__(self) -> None:
        super().__init__(maxlen=LAST_ACTIONS)


class Prefix:
    """The committed positions of the action being decoded: what a draft may look at.

    They lie in the slots 0, 1, 2, ... of the target's cache. A padded prompt takes more slots than it has positions:
    those between its end and the action's tokens are never attended to, and the tokens keep their true positions.

    Attributes:
        features: (capacity, hidden) the target's hidden states after its final norm; `length` slots are valid.
        next_embeddings: (capacity, hidden) the target's input embedding of what follows each of these slots.
        newest: (1,) id of the newest committed token, which the target has not read yet.
        tokens: ids of the action tokens committed so far, at least one: the same on the host, or `UNREAD`.
        answers: (7, 2) what a greedy pass leaves for the host: a token, and whether its logits are finite.
        history: the actions before this one.
        prompt_slots: slots of image and prompt.
        padded: whether the prompt occupies a recorded bucket, so that slots may exceed positions.
        prompt_length: scalar tensor, positions of image and prompt.
        runner: of a draft's own work on the device.
    """

    def __init__(self, target: OpenVLA, capacity: int, runner: Runner) -> None:
        self.target = target
        self.runner = runner
        weight = target.language_model.lm_head.weight
        self.features = weight.new_zeros(capacity, weight.shape[1])
        self.next_embeddings = weight.new_zeros(capacity, weight.shape[1])
        self.newest = torch.zeros(1, dtype=torch.long, device=weight.device)
        self.answers = torch.zeros(ACTION_LENGTH, 2, dtype=torch.long, device=weight.device)
        self.prompt_length = torch.zeros((), dtype=torch.long, device=weight.device)
        self.prompt_slots = 0
        self.padded = False
        self.tokens: list[int] = []
        self.history = History()
        self._visible = torch.ones(capacity, dtype=torch.bool, device=weight.device)

    @property
    def device(self) -> torch.device:
        """Where everything but `tokens` is."""
        return self.newest.device

    @property
    def length(self) -> int:
        """Slots in the target's cache."""
        return self.prompt_slots + len(self.tokens) - 1

    @property
    def position(self) -> Tensor:
        """Position of the newest token, a scalar tensor."""
        return self.prompt_length + (len(self.tokens) - 1)

    def begin(self, history: History, prompt_length: int, slots: int, *, padded: bool) -> None:
        """An action starts: nothing is committed yet."""
        self.history = history
        self.prompt_length.fill_(prompt_length)
        self.prompt_slots = slots
        self.padded = padded
        self.tokens = []

    def fill_prompt(self, embeddings: Tensor, features: Tensor, first_token: Tensor) -> None:
        """The (slots, hidden) embeddings and features of image and prompt, and the (1,) token that they predict."""
        count = len(embeddings)
        self.features[:count] = features
        self.next_embeddings[: count - 1] = embeddings[1:]
        self.next_embeddings.index_copy_(0, self.prompt_length[None] - 1, self.target.embed_tokens(first_token))
        self.newest.copy_(first_token)
        slots = torch.arange(len(self._visible), device=self.device)
        torch.logical_or(slots < self.prompt_length, slots >= self.prompt_slots, out=self._visible)

    def fill_path(self, features: Tensor, following: Tensor, newest: Tensor) -> None:
        """An accepted path: the (m, hidden) features of its nodes, the (m,) tokens after them, the (1,) last token."""
        end = self.length + len(features)
        self.features[self.length : end] = features
        self.next_embeddings[self.length : end] = self.target.embed_tokens(following)
        self.newest.copy_(newest)

    def last_of_prompt(self, rows: Tensor) -> Tensor:
        """The row, (1, hidden), of (slots, hidden) that belongs to the prompt's last position."""
        return rows.index_select(0, self.prompt_length[None] - 1) if self.padded else rows[-1:]

    def mask(self, slots: int, behind: Tensor) -> Tensor | None:
        """What n new positions may attend to: the first `slots` slots, and behind them as the (n, m) `behind` says.

        Returns:
            (n, slots + m or more) True where attention is allowed; None for a single position that sees everything.
        """
        if not self.padded and behind.shape == (1, 1):
            return None
        mask = torch.cat([self._visible[:slots].expand(len(behind), -1), behind], dim=1)
        return F.pad(mask, (0, -mask.shape[1] % ALIGNMENT)) if self.padded else mask


class Drafter(Protocol):
    """Proposes continuations; whatever it proposes, the target decides.

    It keeps nothing from one action to the next.
    """

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        """A tree no deeper than `depth` whose root is `prefix.newest`."""

    def clear(self) -> None:
        """Leave no number of an action behind: one that is not finite would count even where nothing attends to it."""
