from __future__ import annotations

import numpy as np
import torch

from specvla_ros import load_policy
from specvla_ros.bench.transformers_policy import TransformersPolicy, transformers_llama

INSTRUCTION = "pick up the bowl"


def test_transformers_answers_with_the_same_tokens_where_only_action_tokens_can_win() -> None:
    policy = load_policy(device="cpu")
    config = policy.decoder.target.config
    head = policy.decoder.target.language_model.lm_head.weight
    head[: config.first_action_id] = 0.0
    head[config.vocabulary_size :] = 0.0
    theirs = TransformersPolicy(policy)
    for seed in range(4):
        image = np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8)
        expected, found = policy.act(image, INSTRUCTION), theirs.act(image, INSTRUCTION)
        assert found.tokens == expected.tokens and np.array_equal(found.values, expected.values)
        assert found.stats.forwards == 7
        assert set(found.stats.milliseconds) == {"prepare", "vision", "prefill", "verify", "total"}


def test_its_weights_are_ours_and_no_copy() -> None:
    target = load_policy(device="cpu").decoder.target
    theirs = transformers_llama(target)
    ours = dict(target.language_model.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert parameter.data_ptr() == ours[name].data_ptr()
    assert all(tensor.device == torch.device("cpu") for tensor in theirs.buffers())
