"""Decoding by replays of what was recorded at load, with a stand-in for CUDA's recorder; test/gpu has the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from models import greedy_tokens, random_head, random_inputs, random_target
from replays import record

from specvla_ros.errors import DecodeError
from specvla_ros.policy import expand_thresholds
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import Drafter, History
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig
from specvla_ros.speculative.history import HoldDrafter, LinearDrafter
from specvla_ros.speculative.merged import MergedDrafter
from specvla_ros.speculative.plain import NoDrafter
from specvla_ros.vla.graphs import Graphs, Recorder
from specvla_ros.vla.model import OpenVLA

OutputsOf = Callable[[], tuple[torch.Tensor, ...]]
CAPACITY, BUCKETS = 300, (264, 280)
STRICT, RELAXED = expand_thresholds(0), expand_thresholds([255] * 7)
SCENES = ((0, 6), (0, 6), (1, 20), (1, 20), (2, 6), (0, 24), (0, 8))
"""Seed and prompt length of each action: both buckets, still and changing, and a prompt that fills a bucket."""
DRAFTS = ("none", "hold", "linear", "eagle", "hold+linear", "hold+eagle")


def build(name: str, target: OpenVLA) -> Drafter:
    if "+" in name:
        return MergedDrafter([build(part, target) for part in name.split("+")])
    drafters = {
        "none": NoDrafter,
        "hold": HoldDrafter,
        "linear": lambda: LinearDrafter(target.config.action_ids),
        "eagle": lambda: EagleDrafter(target, random_head(7), capacity=CAPACITY, tree=TreeConfig()),
    }
    return drafters[name]()


def recorded(name: str, target: OpenVLA, recorder: Recorder = record) -> tuple[SpeculativeDecoder, Graphs]:
    graphs = Graphs(BUCKETS, recorder)
    decoder = SpeculativeDecoder(target, build(name, target), capacity=CAPACITY, runner=graphs)
    decoder.record(graphs, lambda done, of: None)
    return decoder, graphs


@pytest.mark.parametrize("name", DRAFTS)
def test_every_pass_was_recorded_and_strict_tokens_are_those_of_greedy_decoding(name: str) -> None:
    target = random_target(11)
    decoder, graphs = recorded(name, target)
    history = History()
    for seed, length in SCENES:
        ids, pixels = random_inputs(seed, length)
        assert decoder.decode(ids, pixels, STRICT, history)[0] == greedy_tokens(target, ids, pixels)
    assert graphs.misses == 0


@pytest.mark.parametrize("name", DRAFTS[1:])
def test_a_relaxed_action_by_replays_is_that_without(name: str) -> None:
    target = random_target(11)
    decoder, graphs = recorded(name, target)
    eager = SpeculativeDecoder(target, build(name, target), capacity=CAPACITY)
    history, eager_history = History(), History()
    for seed, length in SCENES:
        inputs = random_inputs(seed, length)
        tokens, stats = decoder.decode(*inputs, RELAXED, history)
        expected, counted = eager.decode(*inputs, RELAXED, eager_history)
        assert tokens == expected and stats.accepted == counted.accepted
        assert stats.deviations == counted.deviations
    assert graphs.misses == 0


def test_thresholds_change_without_a_new_recording() -> None:
    target = random_target(11)
    decoder, graphs = recorded("eagle", target)
    ids, pixels = random_inputs(2)
    strict, relaxed = (decoder.decode(ids, pixels, thresholds)[1] for thresholds in (STRICT, RELAXED))
    assert strict.forwards == 7 and relaxed.forwards == 2 and graphs.misses == 0


def test_a_longer_prompt_is_decoded_without_recordings_and_counted() -> None:
    target = random_target(11)
    decoder, graphs = recorded("hold", target)
    ids, pixels = random_inputs(0, BUCKETS[-1] - 256 + 1)
    for _ in range(2):
        tokens, stats = decoder.decode(ids, pixels, STRICT)
        assert tokens == greedy_tokens(target, ids, pixels)
        assert stats.graph_misses == 7, "the prefill and six rounds; vision does not depend on the prompt"
    assert graphs.misses == 14 and decoder.decode(*random_inputs(0), STRICT)[1].graph_misses == 0


def test_an_action_that_was_not_finite_leaves_nothing_behind() -> None:
    """A slot that is never attended to still counts if it holds no number."""
    target = random_target(11)
    for name in ("none", "eagle"):
        decoder, _ = recorded(name, target)
        ids, pixels = random_inputs(1, 20)
        weight = target.vision_backbone.featurizer.pos_embed
        with torch.no_grad():
            kept = weight.clone()
            weight.fill_(float("nan"))
        with pytest.raises(DecodeError, match="not finite"):
            decoder.decode(ids, pixels, STRICT)
        with torch.no_grad():
            weight.copy_(kept)
        short = random_inputs(1, 6)
        assert decoder.decode(*short, STRICT)[0] == greedy_tokens(target, *short)


@pytest.mark.parametrize("name", ["none", "hold", "eagle"])
def test_a_model_that_is_not_finite_is_refused_as_it_is_recorded(name: str) -> None:
    target = random_target(11)
    with torch.no_grad():
        target.language_model.lm_head.weight[200] = float("nan")
    with pytest.raises(DecodeError, match="not finite"):
        recorded(name, target)


def test_recording_tells_how_far_it_is() -> None:
    target = random_target(11)
    graphs, told = Graphs(BUCKETS, record), list[tuple[int, int]]()
    decoder = SpeculativeDecoder(target, HoldDrafter(), capacity=CAPACITY, runner=graphs)
    decoder.record(graphs, lambda done, of: told.append((done, of)))
    assert told == [(step, 24) for step in range(1, 25)]


def test_no_work_runs_while_another_thread_records() -> None:
    """Graphs share scratch memory."""
    replays: list[str] = []
    during: list[int] = []

    def noted(work: OutputsOf) -> tuple[tuple[torch.Tensor, ...], Callable[[], None]]:
        outputs, compute = record(work)

        def compute_and_note() -> None:
            replays.append("")
            compute()

        return outputs, compute_and_note

    def slow(work: OutputsOf) -> tuple[tuple[torch.Tensor, ...], Callable[[], None]]:
        before = len(replays)
        time.sleep(0.01)
        during.append(len(replays) - before)
        return record(work)

    target = random_target(11)
    decoder, _ = recorded("hold", target, noted)
    ids, pixels = random_inputs(2)
    stop, seen, history = threading.Event(), list[list[int]](), History()

    def decode() -> None:
        while not stop.is_set():
            seen.append(list(decoder.decode(ids, pixels, STRICT, history)[0]))

    thread = threading.Thread(target=decode)
    thread.start()
    while not seen:
        time.sleep(0.01)
    recorded("none", target, slow)
    stop.set()
    thread.join()
    assert len(during) > 10 and not any(during)
    assert all(tokens == greedy_tokens(target, ids, pixels) for tokens in seen)
