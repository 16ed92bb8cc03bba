"""The language model against transformers' Llama with the same weights."""

from __future__ import annotations

import pytest
import torch
from models import random_target
from transformers import LlamaConfig, LlamaForCausalLM

from specvla_ros.vla.llama import fuse_projections, lay_out_projections
from specvla_ros.vla.model import OpenVLA

LENGTH = 24


def transformers_copy(target: OpenVLA) -> LlamaForCausalLM:
    """The same weights in transformers' own Llama."""
    config = target.config.llama
    copy = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            max_position_embeddings=config.max_position_embeddings,
            rms_norm_eps=config.rms_norm_eps,
            tie_word_embeddings=False,
        )
    )
    copy.load_state_dict(target.language_model.state_dict())
    return copy.double().eval()


@pytest.mark.parametrize("seed", range(3))
@torch.inference_mode()
def test_features_and_logits_equal_those_of_transformers(seed: int) -> None:
    target = random_target(seed, layers=3)
    embeddings = torch.randn(LENGTH, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    features = target(embeddings, torch.arange(LENGTH), target.new_cache(LENGTH))
    theirs = transformers_copy(target)(inputs_embeds=embeddings[None])
    # Their cosines and norms are float32 inside a float64 model.
    assert float((target.logits(features) - theirs.logits[0]).abs().max()) < 1e-4


@torch.inference_mode()
def test_fused_projections_change_no_feature_no_parameter_and_need_no_second_copy() -> None:
    target = random_target(5)
    embeddings = torch.randn(LENGTH, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    parameters = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    apart = target(embeddings, torch.arange(LENGTH), target.new_cache(LENGTH))
    fuse_projections(target)
    fused = target(embeddings, torch.arange(LENGTH), target.new_cache(LENGTH))
    assert torch.allclose(fused, apart, atol=1e-12)
    assert list(target.state_dict()) == list(parameters)
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in target.state_dict().items())
    for layer in target.language_model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            assert (
                projection.weight.untyped_storage().data_ptr()
                == attention.qkv.keywords["weight"].untyped_storage().data_ptr()
            )
        for projection in (mlp.gate_proj, mlp.up_proj):
            assert (
                projection.weight.untyped_storage().data_ptr()
                == mlp.gate_up.keywords["weight"].untyped_storage().data_ptr()
            )


def test_a_gpus_memory_that_the_single_projections_took_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    target, fused_then = random_target(5), list[int]()
    layers = target.language_model.model.layers
    projections = [(layer.self_attn, "qkv") for layer in layers] + [(layer.mlp, "gate_up") for layer in layers]

    def count_fused() -> None:
        fused_then.append(sum(getattr(part, name) is not None for part, name in projections))

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", count_fused)
    lay_out_projections(target, torch.device("cpu"), "full")
    assert fused_then == list(range(1, len(projections) + 1)), "part by part"


@torch.inference_mode()
def test_a_branch_of_a_tree_sees_its_ancestors_alone() -> None:
    """Two branches behind one prefix in one masked forward, against each branch on its own."""
    target = random_target(7)
    tokens = torch.randn(LENGTH + 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    prefix, branches = tokens[:LENGTH], (tokens[LENGTH : LENGTH + 2], tokens[LENGTH + 2 :])
    cache = target.new_cache(LENGTH + 4)
    target(prefix, torch.arange(LENGTH), cache)
    cache.commit(LENGTH)
    mask = torch.ones(4, LENGTH + 4, dtype=torch.bool)
    mask[:, LENGTH:] = torch.block_diag(*[torch.tril(torch.ones(2, 2))] * 2).bool()
    positions = torch.tensor([0, 1, 0, 1]) + LENGTH
    together = target(torch.cat(branches), positions, cache, mask)
    for number, branch in enumerate(branches):
        alone = target(torch.cat([prefix, branch]), torch.arange(LENGTH + 2), target.new_cache(LENGTH + 2))
        assert torch.allclose(together[2 * number : 2 * number + 2], alone[LENGTH:], atol=1e-9)


@torch.inference_mode()
def test_a_committed_path_is_what_the_next_forward_sees() -> None:
    target = random_target(8)
    tokens = torch.randn(LENGTH + 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    prefix, nodes, following = tokens[:LENGTH], tokens[LENGTH:-1], tokens[-1:]
    cache = target.new_cache(LENGTH + 8)
    target(prefix, torch.arange(LENGTH), cache)
    cache.commit(LENGTH)
    mask = torch.ones(4, LENGTH + 4, dtype=torch.bool)
    mask[:, LENGTH:] = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]).bool()
    target(nodes, torch.tensor([0, 1, 1, 2]) + LENGTH, cache, mask)
    path = torch.tensor([0, 2, 3])
    cache.move(path)
    cache.commit(len(path))
    assert cache.length == LENGTH + 3
    step = target(following, torch.tensor([LENGTH + 3]), cache)
    sequence = torch.cat([prefix, nodes[path], following])
    whole = target(sequence, torch.arange(len(sequence)), target.new_cache(len(sequence)))
    assert torch.allclose(step, whole[-1:], atol=1e-9)


def test_a_full_cache_and_a_missing_mask_are_errors() -> None:
    target = random_target(0)
    cache = target.new_cache(4)
    with torch.inference_mode():
        with pytest.raises(ValueError, match="5 positions do not fit a key-value cache of 4"):
            target(torch.zeros(5, 16, dtype=torch.float64), torch.arange(5), cache)
        target(torch.zeros(2, 16, dtype=torch.float64), torch.arange(2), cache)
        cache.commit(2)
        with pytest.raises(ValueError, match="need a mask"):
            target(torch.zeros(2, 16, dtype=torch.float64), torch.arange(2), cache)
