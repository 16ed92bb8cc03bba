"""The bytes and the arithmetic of an action against what the shapes say."""

from __future__ import annotations

import pytest
from models import random_head, random_inputs, random_target
from replays import record
from torch import nn

from specvla_ros.bench.work import WorkMeter
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import History
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig
from specvla_ros.speculative.history import HoldDrafter
from specvla_ros.speculative.merged import MergedDrafter
from specvla_ros.speculative.plain import NoDrafter
from specvla_ros.vla.graphs import Graphs

CAPACITY, STRICT, FLOAT64 = 300, (0,) * 7, 8
HIDDEN, LAYERS, PROMPT = 16, 2, 6


def size(*modules: nn.Module) -> int:
    return FLOAT64 * sum(parameter.numel() for module in modules for parameter in module.parameters())


def test_plain_decoding_reads_the_language_model_seven_times_and_the_eyes_once() -> None:
    target = random_target(0)
    meter = WorkMeter(target)
    SpeculativeDecoder(target, NoDrafter(), capacity=CAPACITY).decode(*random_inputs(0, PROMPT), STRICT)
    model = target.language_model.model
    language = size(model.layers, model.norm) + FLOAT64 * 256 * HIDDEN
    # Keys and values of what a pass attends to are read, those of what is new are written.
    lengths = [(PROMPT + 256, PROMPT + 256), *((PROMPT + 256 + step, 1) for step in range(1, 7))]
    cache = sum(2 * LAYERS * HIDDEN * FLOAT64 * (attended + new) for attended, new in lengths)
    assert meter.work.bytes == size(target.vision_backbone, target.projector) + 7 * language + cache


def test_a_good_draft_saves_bytes_but_hardly_any_arithmetic() -> None:
    target = random_target(0)
    inputs = random_inputs(0, PROMPT)
    meter = WorkMeter(target)
    decoder, history = SpeculativeDecoder(target, HoldDrafter(), capacity=CAPACITY), History()
    decoder.decode(*inputs, STRICT, history)
    plain = meter.work
    decoder.decode(*inputs, STRICT, history)
    drafted = meter.work - plain
    assert drafted.bytes < plain.bytes
    assert drafted.operations == pytest.approx(plain.operations, rel=0.02)


def test_replays_of_graphs_count_as_the_passes_in_them() -> None:
    target = random_target(0)
    meter = WorkMeter(target)
    runner = Graphs((PROMPT + 256,), meter.recorder(record))
    decoder = SpeculativeDecoder(target, NoDrafter(), capacity=CAPACITY, runner=runner)
    decoder.record(runner, lambda done, of: None)
    target.language_model.model._forward_hooks.clear()
    target.vision_backbone._forward_hooks.clear()
    before = meter.work
    decoder.decode(*random_inputs(0, PROMPT), STRICT)
    other = WorkMeter(target)
    SpeculativeDecoder(target, NoDrafter(), capacity=CAPACITY).decode(*random_inputs(0, PROMPT), STRICT)
    assert meter.work - before == other.work


@pytest.mark.parametrize("merged", [False, True])
def test_a_learned_draft_is_counted_once_for_each_of_its_passes(merged: bool) -> None:
    target, head = random_target(0), random_head(1)
    eagle = EagleDrafter(target, head, capacity=CAPACITY, tree=TreeConfig(depth=2))
    drafter = MergedDrafter([HoldDrafter(), eagle]) if merged else eagle
    passes: list[int] = []
    head.register_forward_hook(lambda *_: passes.append(1))
    meter = WorkMeter(target)
    decoder = SpeculativeDecoder(target, drafter, capacity=CAPACITY)
    decoder.decode(*random_inputs(0), STRICT)
    without = meter.work
    first = len(passes)
    meter.watch_drafts(drafter)
    decoder.decode(*random_inputs(0), STRICT)
    drafts = (meter.work - without).bytes - without.bytes
    assert len(passes) == 2 * first
    assert drafts > first * size(head)
    assert drafts < first * (size(head) + FLOAT64 * HIDDEN * (256 + 4 * CAPACITY))
