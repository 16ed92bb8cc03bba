from __future__ import annotations

import pytest
import torch
from models import after, random_head, random_inputs, random_target

from specvla_ros.bench.imposed import DeepDrafter, ImposedDecoder
from specvla_ros.speculative.drafter import Drafter, History, Prefix
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig
from specvla_ros.speculative.history import HoldDrafter
from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.graphs import Eager
from specvla_ros.vla.model import OpenVLA

CAPACITY = 300
ACTIONS = [(5,), (0, 4), (2, 1, 0), (0,) * 6]


def eagle(target: OpenVLA) -> EagleDrafter:
    return EagleDrafter(target, random_head(3), capacity=CAPACITY, tree=TreeConfig())


def hold(target: OpenVLA) -> HoldDrafter:
    return HoldDrafter()


@pytest.mark.parametrize("make", [eagle, hold])
def test_an_action_has_the_rounds_that_were_imposed(make: type) -> None:
    target = random_target(0)
    decoder = ImposedDecoder(target, make(target), ACTIONS, capacity=CAPACITY)
    history = after([target.config.first_action_id] * 7)
    for index in range(2 * len(ACTIONS)):
        tokens, stats = decoder.decode(*random_inputs(index), (0,) * 7, history)
        assert stats.accepted == ACTIONS[index % len(ACTIONS)], "whatever the weights say"
        assert len(tokens) == 7 and stats.forwards == 1 + len(stats.accepted)


class Recording:
    """Remembers how many nodes were drafted."""

    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter
        self.nodes: list[int] = []

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        tree = self._drafter.draft(prefix, depth)
        self.nodes.append(len(tree))
        return tree

    def clear(self) -> None:
        self._drafter.clear()


def test_the_target_verifies_as_many_nodes_as_the_draft_has() -> None:
    target = random_target(0)
    drafted = Recording(eagle(target))
    decoder = ImposedDecoder(target, drafted, [(2, 1, 0)], capacity=CAPACITY)
    verified: list[int] = []
    decoder.observer = lambda one: verified.append(len(one.tree))
    decoder.decode(*random_inputs(0), (0,) * 7)
    assert verified == drafted.nodes and verified[0] == 50


def test_the_tree_is_as_deep_as_a_round_can_use_and_keeps_its_tokens() -> None:
    target = random_target(0)
    prefix = Prefix(target, CAPACITY, Eager())
    prefix.begin(History(), 10, 10, padded=False)
    prefix.tokens = [target.config.first_action_id]
    plain = eagle(target).draft(prefix, 5)
    deep = DeepDrafter(eagle(target)).draft(prefix, 5)
    assert torch.equal(deep.tokens, plain.tokens) and int(deep.depths.max()) == 5
    expected = DraftTree.from_parents(deep.tokens, deep.parents, depth=5)
    assert torch.equal(deep.ancestors, expected.ancestors) and torch.equal(deep.depths, expected.depths)
