"""CUDA graphs on a real GPU: what is replayed is what is computed without them. Skipped where there is none."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import torch

from specvla_ros.bench.sizes import SIZES, random_drafter, random_target
from specvla_ros.errors import DecodeError
from specvla_ros.policy import ACTION_LENGTH, expand_thresholds
from specvla_ros.runtime import CAPACITY, load_policy
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.vla.graphs import Graphs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DRAFTS = ("none", "hold", "eagle", "hold+eagle")
INSTRUCTIONS = (
    "pick up the bowl",
    "pick up the black bowl between the plate and the ramekin and place it on the stove",
)
STRICT, RELAXED = expand_thresholds(0), expand_thresholds([255] * ACTION_LENGTH)


def images() -> list[np.ndarray]:
    """The same scene twice, then others."""
    drawn = list(np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8))
    return [drawn[0], *drawn, drawn[2]]


@pytest.mark.parametrize("draft", DRAFTS)
def test_strict_tokens_by_graphs_are_those_of_the_cpu(draft: str) -> None:
    on_gpu = load_policy(draft=draft, device="cuda", dtype="float32")
    on_cpu = load_policy(device="cpu")
    for instruction in INSTRUCTIONS:
        for image in images():
            assert on_gpu.act(image, instruction).tokens == on_cpu.act(image, instruction).tokens
    assert on_gpu.decoder.runner.misses == 0


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("threshold", [0, 9])
def test_graphs_change_no_token_and_no_accepted_length(draft: str, threshold: int) -> None:
    graphed = load_policy(draft=draft, threshold=threshold, device="cuda", dtype="float32")
    eager = load_policy(draft=draft, threshold=threshold, device="cuda", dtype="float32", graphs=False)
    for image in images():
        one, other = (policy.act(image, INSTRUCTIONS[1]) for policy in (graphed, eager))
        assert one.tokens == other.tokens and one.stats.accepted == other.stats.accepted


@pytest.mark.skipif(torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 9), reason="no 8-bit floats")
def test_weights_of_8_bits_give_the_same_action_by_graphs_and_without_and_mostly_the_full_ones() -> None:
    graphed, eager = (
        load_policy(draft="hold", device="cuda", weights="float8", graphs=graphs) for graphs in (True, False)
    )
    full = load_policy(draft="hold", device="cuda")
    for image in images():
        one, other, exact = (policy.act(image, INSTRUCTIONS[1]) for policy in (graphed, eager, full))
        assert one.tokens == other.tokens and one.stats.accepted == other.stats.accepted
        assert np.abs(one.values[:6] - exact.values[:6]).max() < 0.5


def test_a_new_threshold_and_a_new_instruction_need_no_new_graph() -> None:
    policy = load_policy(draft="hold", device="cuda", dtype="bfloat16")
    graphs = policy.decoder.runner
    assert isinstance(graphs, Graphs)
    for threshold in (STRICT, RELAXED):
        policy.thresholds = threshold
        for instruction in INSTRUCTIONS:
            for image in images():
                policy.act(image, instruction)
    assert graphs.misses == 0


def test_a_longer_prompt_than_any_graph_is_decoded_and_counted() -> None:
    policy = load_policy(device="cuda", dtype="float32")
    instruction = "pick up the bowl and then " * 20
    assert policy.act(images()[0], instruction).tokens == load_policy(device="cpu").act(images()[0], instruction).tokens
    assert policy.decoder.runner.misses == ACTION_LENGTH


def test_another_draft_is_recorded_while_actions_are_decoded() -> None:
    """As in the policy node: one thread decodes, another loads the draft that was chosen."""
    policy = load_policy(draft="hold", device="cuda", dtype="float32")
    expected = [policy.act(image, INSTRUCTIONS[0]).tokens for image in images()]
    seen, stop = list[tuple[int, ...]](), threading.Event()

    def decode() -> None:
        while not stop.is_set():
            seen.extend(policy.act(image, INSTRUCTIONS[0]).tokens for image in images())

    thread = threading.Thread(target=decode)
    thread.start()
    other = policy.with_draft("eagle", STRICT)
    stop.set()
    thread.join()
    assert [other.act(image, INSTRUCTIONS[0]).tokens for image in images()] == expected
    assert len(seen) >= len(expected) and seen == expected * (len(seen) // len(expected))


def test_an_image_prepared_ahead_gives_the_same_tokens() -> None:
    policy, ahead = (load_policy(draft="hold", device="cuda", dtype="float32") for _ in range(2))
    for image in images():
        ahead.look(image)
        assert ahead.act(image, INSTRUCTIONS[0]).tokens == policy.act(image, INSTRUCTIONS[0]).tokens


def test_an_action_that_was_not_finite_leaves_nothing_behind() -> None:
    policy = load_policy(device="cuda", dtype="float32")
    before = policy.act(images()[0], INSTRUCTIONS[0]).tokens
    weight = policy.decoder.target.vision_backbone.featurizer.pos_embed
    kept = weight.clone()
    weight.fill_(float("nan"))
    with pytest.raises(DecodeError, match="not finite"):
        policy.act(images()[0], INSTRUCTIONS[1])
    weight.copy_(kept)
    assert policy.act(images()[0], INSTRUCTIONS[0]).tokens == before


def test_phases_add_up_to_no_more_than_the_whole() -> None:
    times = load_policy(draft="hold", device="cuda").act(images()[0], INSTRUCTIONS[0]).stats.milliseconds
    assert set(times) == {"prepare", "vision", "prefill", "draft", "verify", "total"}
    assert 0 < sum(value for name, value in times.items() if name != "total") <= 1.05 * times["total"]


def test_the_released_model_with_draft_and_graphs_stays_under_18_gb() -> None:
    device = torch.device("cuda")
    if torch.cuda.mem_get_info()[0] < 24e9:
        pytest.skip("needs a GPU with 24 GB free")
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    target = random_target(SIZES["7b"], torch.bfloat16, device)
    graphs = Graphs()
    decoder = SpeculativeDecoder(target, random_drafter("eagle", target), capacity=CAPACITY, runner=graphs)
    decoder.record(graphs, lambda done, of: None)
    ids = torch.arange(1, 22)
    decoder.decode(ids, torch.zeros(1, 6, 224, 224), STRICT)
    held = torch.cuda.memory_reserved() - before
    print(f"7B in bfloat16 with a learned draft and graphs: {held / 1e9:.1f} GB reserved")
    assert held < 18e9
