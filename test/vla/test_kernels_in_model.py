"""All of Triton's kernels at once: the language model computes with them what it computes without."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from models import random_target
from torch import Tensor

from specvla_ros.training.greedy import act_greedily
from specvla_ros.vla import kernels
from specvla_ros.vla.config import IMAGE_SIZE
from specvla_ros.vla.llama import LlamaModel, fuse_projections

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# The interpreter cuts bfloat16 off where a GPU rounds.
DTYPE = torch.bfloat16 if torch.cuda.is_available() else torch.float16
PROMPT, TREE = 20, 5
pytestmark = pytest.mark.skipif(kernels.triton is None, reason="Triton is not installed")


def model(dtype: torch.dtype) -> LlamaModel:
    """Heads of 128 and widths that the products take."""
    target = random_target(0, hidden_size=256)
    for parameter in target.parameters():
        parameter.data *= 0.2
    return fuse_projections(target.to(DEVICE, dtype)).language_model.model


@torch.inference_mode()
def features(model: LlamaModel, dtype: torch.dtype) -> list[Tensor]:
    """Of a prompt, of a tree behind it, and of one token behind a path in the tree."""
    cache = random_target(0, hidden_size=256).to(DEVICE, dtype).new_cache(64)
    embeddings = torch.randn(PROMPT + TREE + 1, 256, generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    places = torch.arange(PROMPT, device=DEVICE)
    found = [model(embeddings[:PROMPT], places, cache)]
    cache.commit(PROMPT)
    tree = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 0, 1]])
    mask = torch.ones(TREE, PROMPT + TREE, dtype=torch.bool)
    mask[:, PROMPT:], mask[:, 7] = tree.bool(), False
    depths = torch.tensor([0, 1, 1, 2, 2], device=DEVICE)
    found.append(model(embeddings[PROMPT : PROMPT + TREE], PROMPT + depths, cache, mask.to(DEVICE)))
    cache.commit(2)
    mask = torch.ones(1, PROMPT + 3, dtype=torch.bool, device=DEVICE)
    found.append(model(embeddings[-1:], torch.tensor([PROMPT + 2], device=DEVICE), cache, mask))
    return found


def watch(monkeypatch: pytest.MonkeyPatch, name: str) -> Mock:
    """A kernel that counts its calls."""
    kernel = Mock(wraps=getattr(kernels, name))
    monkeypatch.setattr(kernels, name, kernel)
    return kernel


def test_a_model_with_all_kernels_has_the_exact_ones_features(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setattr(kernels, "_runs_on", lambda x: True)
    called = {name: watch(monkeypatch, name) for name in ("product", "attend", "rotate_and_store", "add_rms_norm")}
    ours = features(model(DTYPE), DTYPE)
    counts = {name: kernel.call_count for name, kernel in called.items()}
    assert all(counts.values())
    exact = features(model(torch.float64), torch.float64)
    assert counts == {name: kernel.call_count for name, kernel in called.items()}, "none of them knows float64"
    for one, other in zip(ours, exact, strict=True):
        assert float((one.double() - other).norm() / other.norm()) < 8 * torch.finfo(DTYPE).eps


def test_a_batch_of_images_is_computed_by_torch_and_has_the_exact_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    target = fuse_projections(random_target(0, hidden_size=256).eval().to(DEVICE))
    prompt = torch.tensor([1, 5, 6, 7])
    pixels = torch.randn(2, 6, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1))
    with monkeypatch.context() as without:
        without.setattr(kernels, "_runs_on", lambda x: False)
        exact = act_greedily(target, prompt, pixels.to(DEVICE))
    if not torch.cuda.is_available():
        monkeypatch.setattr(kernels, "_runs_on", lambda x: True)
    assert torch.equal(act_greedily(target, prompt, pixels.to(DEVICE)).tokens, exact.tokens)
