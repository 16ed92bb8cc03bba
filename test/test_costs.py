"""What an action costs in counts, which no other load of the machine changes: a slower decoder fails here first.

Weights and inputs are drawn from fixed seeds in float64, so that no rounding decides between two tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from models import random_head, random_inputs, random_target
from torch.utils._python_dispatch import TorchDispatchMode

from specvla_ros.policy import DecodeStats, Thresholds, expand_thresholds
from specvla_ros.speculative.decode import Round, SpeculativeDecoder
from specvla_ros.speculative.drafter import Drafter, History
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig
from specvla_ros.speculative.history import HoldDrafter, LinearDrafter
from specvla_ros.speculative.merged import MergedDrafter
from specvla_ros.speculative.plain import NoDrafter
from specvla_ros.vla.llama import fuse_projections
from specvla_ros.vla.model import OpenVLA

CAPACITY = 300
STRICT, RELAXED = expand_thresholds(0), expand_thresholds([255] * 7)
SCENES = (0, 0, 1, 1, 0, 2)
"""Which image an action sees: held still, changed, held still, changed back, changed."""
LAYER_BOUND = 18
"""Operations of one layer of the language model in one pass."""
ROUND_BOUND = 71
"""Operations of one greedy round of a model of two layers, drafting and verifying."""
EAGLE_BOUND = 1426
"""Operations of an action of the same model whose learned draft never hits: seven passes and six trees."""
TO_HOST = ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__")


def drafter(name: str, target: OpenVLA) -> Drafter:
    if name == "none":
        return NoDrafter()
    if name == "hold":
        return HoldDrafter()
    if name == "linear":
        return LinearDrafter(target.config.action_ids)
    if name == "eagle":
        return EagleDrafter(target, random_head(7), capacity=CAPACITY, tree=TreeConfig())
    return MergedDrafter([drafter(part, target) for part in name.split("+")])


def run(name: str, thresholds: Thresholds) -> list[DecodeStats]:
    """Decode the scenes one after the other."""
    target = random_target(11)
    decoder = SpeculativeDecoder(target, drafter(name, target), capacity=CAPACITY)
    history = History()
    return [decoder.decode(*random_inputs(scene), thresholds, history)[1] for scene in SCENES]


@contextmanager
def copies_to_host() -> Iterator[Counter[str]]:
    """Everything that makes Python wait for a tensor's values."""
    seen: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for name in TO_HOST:
            patch.setattr(torch.Tensor, name, counting(name, getattr(torch.Tensor, name), seen))
        yield seen


def counting(name: str, original: Any, seen: Counter[str]) -> Any:
    def counted(self: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        seen[name] += 1
        return original(self, *arguments, **named)

    return counted


@pytest.mark.parametrize(
    ("name", "thresholds", "forwards"),
    [
        ("none", STRICT, [7, 7, 7, 7, 7, 7]),
        ("none", RELAXED, [7, 7, 7, 7, 7, 7]),
        ("hold", STRICT, [7, 2, 7, 2, 7, 7]),
        ("hold", RELAXED, [7, 2, 2, 2, 2, 2]),
        ("linear", STRICT, [7, 2, 7, 7, 7, 7]),
        ("hold+linear", STRICT, [7, 2, 7, 2, 7, 7]),
        ("linear", RELAXED, [7, 2, 2, 2, 2, 2]),
        ("eagle", STRICT, [7, 7, 5, 5, 7, 7]),
        ("eagle", RELAXED, [2, 2, 2, 2, 2, 2]),
        ("hold+eagle", STRICT, [7, 2, 5, 2, 7, 7]),
    ],
)
def test_an_action_takes_as_many_forwards_as_it_ever_did(
    name: str, thresholds: Thresholds, forwards: list[int]
) -> None:
    assert [stats.forwards for stats in run(name, thresholds)] == forwards


@pytest.mark.parametrize("thresholds", [STRICT, RELAXED])
@pytest.mark.parametrize("name", ["none", "hold", "hold+linear", "eagle", "hold+eagle"])
def test_the_host_waits_for_each_tree_and_at_the_end_for_greedy_steps(name: str, thresholds: Thresholds) -> None:
    target = random_target(11)
    decoder, rounds = SpeculativeDecoder(target, drafter(name, target), capacity=CAPACITY), list[Round]()
    decoder.observer = rounds.append
    history = History()
    for scene in SCENES:
        rounds.clear()
        inputs = random_inputs(scene)
        with copies_to_host() as seen:
            _, stats = decoder.decode(*inputs, thresholds, history)
        trees = sum(len(one.tree) > 1 for one in rounds)
        assert len(rounds) == stats.rounds and (trees == 0 or name != "none")
        assert seen == {"tolist": trees + (len(rounds[-1].tree) == 1)}


class Kernels(TorchDispatchMode):
    """Counts operations that compute or copy; on a GPU each is at least one launch."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += not function.is_view
        return function(*arguments, **(named or {}))


def kernels(name: str, layers: int) -> tuple[int, int]:
    """Of an action in a scene that was seen just before, and its forwards."""
    target = fuse_projections(random_target(11, layers))
    decoder = SpeculativeDecoder(target, drafter(name, target), capacity=CAPACITY)
    inputs, history = random_inputs(0), History()
    decoder.decode(*inputs, STRICT, history)
    with Kernels() as seen:
        _, stats = decoder.decode(*inputs, STRICT, history)
    return seen.count, stats.forwards


counted_for_this_torch = pytest.mark.skipif(
    not torch.__version__.startswith("2.13."),
    reason="the bounds hold for torch 2.13; another version may take an operation apart differently",
)


@counted_for_this_torch
def test_a_layer_computes_in_no_more_steps_than_it_ever_did() -> None:
    (two, forwards), (three, _) = kernels("none", 2), kernels("none", 3)
    assert (three - two) / forwards <= LAYER_BOUND


@counted_for_this_torch
def test_a_round_takes_no_more_steps_than_it_ever_did() -> None:
    greedy, forwards = kernels("none", 2)
    held, rounds = kernels("hold", 2)
    assert (greedy - held) / (forwards - rounds) <= ROUND_BOUND
    drafted, forwards = kernels("eagle", 2)
    assert forwards == 7 and drafted <= EAGLE_BOUND
