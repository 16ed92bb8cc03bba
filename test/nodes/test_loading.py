"""The policy from the node's parameters: warm, without a trace of the warm-up, and its memory."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from specvla_ros import load_policy
from specvla_ros.errors import CheckpointError, ConfigurationError
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.gpu_memory import free_memory, gpu_memory
from specvla_ros.nodes.loading import load_from_parameters, with_draft
from specvla_ros.nodes.policy_parameters import PARAMETERS
from specvla_ros.shipped import shipped_checkpoint
from specvla_ros.vla.fingerprint import weights_sha256


def test_a_policy_that_was_warmed_up_answers_as_a_new_one() -> None:
    images = [np.full((64, 64, 3), brightness, np.uint8) for brightness in (40, 200)]
    warm, new = load_from_parameters({spec.name: spec.default for spec in PARAMETERS}), load_policy(draft="hold")
    for image in images:
        from_warm, from_new = warm.act(image, "pick up the bowl"), new.act(image, "pick up the bowl")
        assert from_warm.tokens == from_new.tokens
        assert from_warm.stats.accepted == from_new.stats.accepted, "drafts have forgotten the warm-up's action"


def test_another_draft_on_the_same_weights_gives_the_same_answers_at_another_cost() -> None:
    values = {spec.name: spec.default for spec in PARAMETERS} | {"draft": "none"}
    plain = load_from_parameters(values)
    drafted = with_draft(plain, values | {"draft": "hold"})
    image = np.full((64, 64, 3), 90, np.uint8)
    expected, drafted_first = plain.act(image, "pick up the bowl"), drafted.act(image, "pick up the bowl")
    second = drafted.act(image, "pick up the bowl")
    assert expected.tokens == drafted_first.tokens == second.tokens
    assert second.stats.forwards < expected.stats.forwards
    assert drafted.decoder.target is plain.decoder.target


def test_the_image_preparation_of_a_fine_tune_reaches_the_policy() -> None:
    values = {spec.name: spec.default for spec in PARAMETERS} | {"image_preparation": "centre_crop"}
    prepared = load_from_parameters(values)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    _, pixels = prepared.prepare(image, "pick up the bowl")
    _, turned = load_policy().prepare(image[::-1, ::-1], "pick up the bowl")
    assert torch.equal(pixels, turned)


def test_a_draft_that_does_not_exist_is_refused_by_name() -> None:
    values = {spec.name: spec.default for spec in PARAMETERS}
    with pytest.raises(ConfigurationError, match="draft 'nonsense' does not exist"):
        with_draft(load_from_parameters(values), values | {"draft": "nonsense"})


def test_a_draft_whose_weights_have_another_hash_is_refused_and_the_right_one_is_taken() -> None:
    values = {spec.name: spec.default for spec in PARAMETERS}
    policy = load_from_parameters(values)
    expected = weights_sha256(shipped_checkpoint() / "draft")
    with pytest.raises(CheckpointError, match=f"draft have the SHA-256 {expected}; expected 1234"):
        with_draft(policy, values | {"draft": "hold+eagle", "draft_sha256": "1234"})
    with pytest.raises(CheckpointError, match="expected 1234"):
        load_from_parameters(values | {"draft": "eagle", "draft_sha256": "1234"})
    assert with_draft(policy, values | {"draft": "eagle", "draft_sha256": expected}) is not policy


def test_a_policy_without_drafts_stays_as_it_is() -> None:
    policy = FakePolicy()
    assert with_draft(policy, {spec.name: spec.default for spec in PARAMETERS}) is policy


def test_memory_is_given_back_and_reported_where_a_gpu_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        empty_cache=lambda: emptied.append(True),
        device_count=lambda: 2,
        memory_allocated=lambda device=0: [0, 5 * 2**20][device],
        memory_reserved=lambda device=0: [0, 7 * 2**20][device],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpu_memory() == {"GPU memory in use [MiB]": "5", "GPU memory reserved [MiB]": "7"}
    free_memory()
    assert emptied == [True]
    cuda.is_initialized = lambda: False
    assert gpu_memory() == {}
    monkeypatch.delitem(sys.modules, "torch")
    assert gpu_memory() == {}
