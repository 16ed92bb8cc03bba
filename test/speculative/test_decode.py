from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import GuessingDrafter, after, greedy_tokens, random_head, random_inputs, random_target
from replays import record

from specvla_ros.errors import CheckpointError, ConfigurationError, DecodeError
from specvla_ros.policy import DecodeStats, Thresholds
from specvla_ros.speculative.decode import Round, SpeculativeDecoder
from specvla_ros.speculative.drafter import Drafter, History
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig
from specvla_ros.speculative.history import HoldDrafter, LinearDrafter
from specvla_ros.speculative.merged import MergedDrafter
from specvla_ros.speculative.plain import NoDrafter
from specvla_ros.vla.graphs import Eager, Graphs, Runner
from specvla_ros.vla.model import OpenVLA

STRICT: Thresholds = (0,) * 7
CAPACITY = 300
BUCKETS = (264, 280)
"""Prompts of the tests have 1 to 30 tokens beside 256 patches: some fit the first, some the second, some neither."""

seeds = st.integers(0, 2**16)
thresholds_strategy = st.tuples(*[st.sampled_from([0, 1, 3, 9, 40, 255])] * 7)
trees = st.builds(TreeConfig, nodes=st.integers(1, 60), depth=st.integers(0, 6), top_k=st.integers(1, 12))


def runners() -> st.SearchStrategy[Runner]:
    """Prompts as they are; or padded to a bucket, with nothing recorded."""
    return st.sampled_from([(), BUCKETS]).map(lambda buckets: Graphs(buckets, record) if buckets else Eager())


KINDS = ("guess", "eagle", "hold", "linear")


@st.composite
def drafters(
    draw: st.DrawFn, target: OpenVLA, guide: list[int], kinds: tuple[str, ...] = (*KINDS, "merged")
) -> Drafter:
    kind = draw(st.sampled_from(kinds))
    if kind == "guess":
        return GuessingDrafter(draw(seeds), guide, draw(st.integers(0, 40)), draw(st.sampled_from([0, 1, 5, 60])))
    if kind == "eagle":
        return EagleDrafter(target, random_head(draw(seeds)), capacity=CAPACITY, tree=draw(trees))
    if kind == "hold":
        return HoldDrafter()
    if kind == "linear":
        return LinearDrafter(target.config.action_ids)
    # Four trees of the largest fit the cache; more are refused at loading, where drafts are joined by name.
    parts = st.lists(drafters(target, guide, KINDS), min_size=2, max_size=4)
    return MergedDrafter(draw(parts))


@st.composite
def histories(draw: st.DrawFn, target: OpenVLA, guide: list[int]) -> History:
    """Up to two actions before, some of them the right one."""
    ids = target.config.action_ids
    moves = st.lists(st.sampled_from([0, 0, 0, 1, -3, 60]), min_size=7, max_size=7)
    return after(
        *(
            [min(max(token + by, ids[0]), ids[-1]) for token, by in zip(guide, moved, strict=True)]
            for moved in draw(st.lists(moves, max_size=2))
        )
    )


def check_counts(tokens: list[int], stats: DecodeStats, target: OpenVLA) -> None:
    first = target.config.first_action_id
    assert len(tokens) == 7 and all(first <= token < first + 256 for token in tokens)
    assert 1 + sum(accepted + 1 for accepted in stats.accepted) == 7, "every round commits its drafts and one bonus"
    assert stats.forwards == 1 + stats.rounds
    assert len(stats.deviations) == 7


@settings(max_examples=200)
@given(data=st.data(), target_seed=seeds, input_seed=seeds, length=st.integers(1, 30), layers=st.integers(1, 3))
def test_strict_decoding_equals_greedy_for_any_model_draft_tree_and_prompt(
    data: st.DataObject, target_seed: int, input_seed: int, length: int, layers: int
) -> None:
    target = random_target(target_seed, layers)
    ids, pixels = random_inputs(input_seed, length)
    greedy = greedy_tokens(target, ids, pixels)
    drafter, runner = data.draw(drafters(target, greedy)), data.draw(runners())
    decoder = SpeculativeDecoder(target, drafter, capacity=CAPACITY, runner=runner)
    tokens, stats = decoder.decode(ids, pixels, STRICT, data.draw(histories(target, greedy)))
    assert tokens == greedy
    assert stats.deviations == (0,) * 7
    check_counts(tokens, stats, target)


@settings(max_examples=200)
@given(data=st.data(), target_seed=seeds, input_seed=seeds, thresholds=thresholds_strategy)
def test_relaxed_tokens_stay_within_their_threshold_of_the_targets_answer(
    data: st.DataObject, target_seed: int, input_seed: int, thresholds: Thresholds
) -> None:
    target = random_target(target_seed)
    ids, pixels = random_inputs(input_seed)
    guide = greedy_tokens(target, ids, pixels)
    drafter, runner = data.draw(drafters(target, guide)), data.draw(runners())
    decoder = SpeculativeDecoder(target, drafter, capacity=CAPACITY, runner=runner)
    tokens, stats = decoder.decode(ids, pixels, thresholds, data.draw(histories(target, guide)))
    answers = greedy_tokens(target, ids, pixels, forced=tokens)
    distances = tuple(abs(token - answer) for token, answer in zip(tokens, answers, strict=True))
    assert stats.deviations == distances
    assert all(distance <= limit for distance, limit in zip(distances, thresholds, strict=True))
    check_counts(tokens, stats, target)


@settings(max_examples=60)
@given(data=st.data(), target_seed=seeds, input_seed=seeds, thresholds=thresholds_strategy)
def test_what_an_observer_sees_adds_up_to_the_action(
    data: st.DataObject, target_seed: int, input_seed: int, thresholds: Thresholds
) -> None:
    target = random_target(target_seed)
    ids, pixels = random_inputs(input_seed)
    guide = greedy_tokens(target, ids, pixels)
    drafter = data.draw(drafters(target, guide))
    decoder, seen = SpeculativeDecoder(target, drafter, capacity=CAPACITY), list[Round]()
    decoder.observer = seen.append
    tokens, stats = decoder.decode(ids, pixels, thresholds, data.draw(histories(target, guide)))
    answers = greedy_tokens(target, ids, pixels, forced=tokens)
    committed, distances, judged = tokens[:1], [0], answers[:1]
    for one in seen:
        drafted, parents = one.tree.tokens.tolist(), one.tree.parents.tolist()
        assert drafted[0] == committed[-1] and [parents[node] for node in one.path[1:]] == one.path[:-1]
        committed += [*(drafted[node] for node in one.path[1:]), one.answers[one.path[-1]]]
        distances += [*(one.distances[node] for node in one.path[1:]), 0]
        judged += [one.answers[node] for node in one.path]
    assert committed == tokens and judged == answers
    assert tuple(distances) == stats.deviations
    assert tuple(len(one.path) - 1 for one in seen) == stats.accepted


@settings(max_examples=15)
@given(seed=seeds)
def test_a_perfect_draft_needs_one_round_and_an_action_is_remembered_for_the_next(seed: int) -> None:
    target = random_target(seed)
    ids, pixels = random_inputs(seed)
    decoder, history = SpeculativeDecoder(target, HoldDrafter(), capacity=CAPACITY), History()
    tokens, _ = decoder.decode(ids, pixels, STRICT, history)
    assert list(history) == [tokens]
    _, stats = decoder.decode(ids, pixels, STRICT, history)
    assert stats.accepted == (5,) and stats.forwards == 2 and stats.accept_length == 3.5


def test_plain_greedy_takes_seven_forwards() -> None:
    target = random_target(0)
    ids, pixels = random_inputs(0)
    tokens, stats = SpeculativeDecoder(target, NoDrafter(), capacity=CAPACITY).decode(ids, pixels, STRICT)
    assert tokens == greedy_tokens(target, ids, pixels)
    assert stats.forwards == 7 and stats.accept_length == 1.0


def test_one_decoder_serves_many_actions() -> None:
    target = random_target(1)
    drafter = EagleDrafter(target, random_head(1), capacity=CAPACITY, tree=TreeConfig())
    decoder = SpeculativeDecoder(target, drafter, capacity=CAPACITY)
    for seed, length in enumerate([5, 30, 2, 17]):
        ids, pixels = random_inputs(seed, length)
        assert decoder.decode(ids, pixels, STRICT)[0] == greedy_tokens(target, ids, pixels)


def test_a_wide_threshold_never_touches_the_gripper_of_a_strict_dimension() -> None:
    target = random_target(2)
    ids, pixels = random_inputs(2)
    greedy = greedy_tokens(target, ids, pixels)
    drafter = GuessingDrafter(0, greedy, nodes=40, spread=60)
    tokens, stats = SpeculativeDecoder(target, drafter, capacity=CAPACITY).decode(ids, pixels, (255,) * 6 + (0,))
    assert any(stats.deviations[:6])
    assert tokens[6] == greedy_tokens(target, ids, pixels, forced=tokens)[6]


def test_stats_time_every_phase() -> None:
    target = random_target(0)
    decoder = SpeculativeDecoder(target, HoldDrafter(), capacity=CAPACITY)
    _, stats = decoder.decode(*random_inputs(0), STRICT)
    assert set(stats.milliseconds) == {"vision", "prefill", "draft", "verify", "total"}
    phases = sum(value for name, value in stats.milliseconds.items() if name != "total")
    assert 0 < phases <= stats.milliseconds["total"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_gives_an_error_and_no_action(value: float) -> None:
    target = random_target(0)
    with torch.no_grad():
        target.language_model.lm_head.weight[200] = value
    with pytest.raises(DecodeError, match="not finite"):
        SpeculativeDecoder(target, NoDrafter(), capacity=CAPACITY).decode(*random_inputs(0), STRICT)


@pytest.mark.parametrize("drafter", [NoDrafter(), HoldDrafter()], ids=["none", "hold"])
def test_a_verification_that_is_not_finite_gives_an_error_and_no_action(drafter: Drafter) -> None:
    target = random_target(0)
    ids, pixels = random_inputs(0)
    tokens = greedy_tokens(target, ids, pixels)
    with torch.no_grad():
        target.language_model.model.embed_tokens.weight[tokens[0]] = float("nan")
    history = after(tokens)
    with pytest.raises(DecodeError, match="not finite"):
        SpeculativeDecoder(target, drafter, capacity=CAPACITY).decode(ids, pixels, STRICT, history)
    assert list(history) == [tokens], "what is no action is not remembered"


def test_a_target_or_draft_of_fewer_positions_than_a_prompt_may_take_is_refused() -> None:
    target, head = random_target(0), random_head(0)
    with pytest.raises(CheckpointError, match=r"text_config: max_position_embeddings is 600; expected at least 601"):
        SpeculativeDecoder(target, NoDrafter(), capacity=601)
    with pytest.raises(CheckpointError, match=r"draft's config.json: max_position_embeddings is 600"):
        EagleDrafter(target, head, capacity=601, tree=TreeConfig())


def test_a_prompt_that_does_not_fit_names_the_limit_before_anything_is_computed() -> None:
    decoder = SpeculativeDecoder(random_target(0), NoDrafter(), capacity=270)
    ids, _ = random_inputs(0, length=8)
    for decode in (decoder.decode, decoder.decode_patches):
        with pytest.raises(ConfigurationError, match="prompt has 8 tokens; at most 7 fit"):
            decode(ids, torch.empty(0), STRICT)
    assert len(decoder.decode(*random_inputs(0, length=7), STRICT)[0]) == 7
