"""What decoding is said to hold in memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from models import random_head, random_target

from specvla_ros.memory import decoding_bytes
from specvla_ros.runtime import CAPACITY
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig
from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.config import OpenVLAConfig


def test_the_estimate_is_what_a_decoder_with_a_learned_draft_holds() -> None:
    target, head = random_target(0), random_head(0)
    drafter = EagleDrafter(target, head, capacity=CAPACITY, tree=TreeConfig())
    decoder = SpeculativeDecoder(target, drafter, capacity=CAPACITY)
    caches = [
        value for owner in (decoder, drafter) for value in vars(owner).values() if isinstance(value, KeyValueCache)
    ]
    tensors = [tensor for cache in caches for tensor in (cache.keys, cache.values)]
    held = _bytes([*target.parameters(), *head.parameters(), *tensors])
    assert len(caches) == 2
    assert decoding_bytes(target.config, torch.float64) == held


def test_the_released_model_in_bfloat16_with_its_draft_stays_under_18_gb() -> None:
    assert 15e9 < decoding_bytes(OpenVLAConfig()) < 17e9


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
