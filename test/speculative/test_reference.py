"""Against the released Spec-VLA code, through what it computed for two small drafts."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from reference import needs_reference
from torch import Tensor

import specvla_ros.speculative.decode as decode_module
from specvla_ros.policy import Thresholds
from specvla_ros.runtime import load_target
from specvla_ros.speculative.build import load_head
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import Prefix
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig
from specvla_ros.speculative.plain import NoDrafter
from specvla_ros.speculative.tree import DraftTree
from specvla_ros.vla.model import OpenVLA

pytestmark = needs_reference
DRAFTS = ("specvla_draft_tiny", "specvla_draft_untrained")
INPUTS = range(16)
RELAXED = (0, 3, 9, 30, 60, 120)
STRICT: Thresholds = (0,) * 7


@pytest.fixture(scope="module")
def target() -> OpenVLA:
    return load_target(reference.ROOT / "openvla_tiny", torch.float32, torch.device("cpu"))


@pytest.fixture(scope="module", params=DRAFTS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def arrays(name: str) -> dict[str, np.ndarray]:
    return reference.values(name)


def drafter(target: OpenVLA, name: str, *, legacy: bool) -> EagleDrafter:
    head = load_head(reference.ROOT / name, target.dtype, target.device)
    return EagleDrafter(target, head, capacity=320, tree=TreeConfig(legacy=legacy))


def inputs(arrays: dict[str, np.ndarray], index: int) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(arrays[f"{index}/input_ids"][0]), torch.from_numpy(arrays[f"{index}/pixel_values"])


def test_plain_and_strict_tokens_are_the_autoregressive_ones(
    target: OpenVLA, name: str, arrays: dict[str, np.ndarray]
) -> None:
    for candidate in (NoDrafter(), drafter(target, name, legacy=False), drafter(target, name, legacy=True)):
        decoder = SpeculativeDecoder(target, candidate, capacity=320)
        for index in INPUTS:
            tokens, _ = decoder.decode(*inputs(arrays, index), STRICT)
            assert tokens == arrays[f"{index}/ar_tokens"].tolist()


def test_the_legacy_tree_is_the_released_one(
    target: OpenVLA, name: str, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = record_trees(monkeypatch)
    decoder = SpeculativeDecoder(target, drafter(target, name, legacy=True), capacity=320)
    for index in INPUTS:
        trees.clear()
        decoder.decode(*inputs(arrays, index), STRICT)
        first = trees[0]
        assert first.tokens.tolist() == arrays[f"{index}/tree0/draft_tokens"][0].tolist()
        assert torch.equal(first.ancestors, torch.from_numpy(arrays[f"{index}/tree0/tree_mask"][0, 0] > 0))
        assert first.depths.tolist() == arrays[f"{index}/tree0/position_ids"].flatten().tolist()


def record_trees(monkeypatch: pytest.MonkeyPatch) -> list[DraftTree]:
    """Every tree that a decoder verifies from now on."""
    trees: list[DraftTree] = []
    verify = SpeculativeDecoder._verify

    def recording(self: SpeculativeDecoder, tree: DraftTree) -> list[int]:
        trees.append(tree)
        return verify(self, tree)

    monkeypatch.setattr(SpeculativeDecoder, "_verify", recording)
    return trees


class FullDepthDrafter:
    """The released code's drafting: the tree keeps its depth however few tokens are left."""

    def __init__(self, eagle: EagleDrafter) -> None:
        self._eagle = eagle

    def draft(self, prefix: Prefix, depth: int) -> DraftTree:
        return self._eagle.draft(prefix, 6)

    def clear(self) -> None:
        self._eagle.clear()


def first_longest_node(tree: DraftTree, distance: Tensor, limits: Tensor) -> Tensor:
    """The released choice: one limit for every token, and of equally long paths the first by its leaf's index."""
    accepted = ~(tree.ancestors & (distance > limits[0])).any(dim=1)
    deepest = int(tree.depths.masked_fill(~accepted, -1).max())
    is_leaf = tree.ancestors.sum(dim=0) == 1
    first_leaf = (tree.ancestors & is_leaf[:, None]).int().argmax(dim=0)
    return first_leaf.masked_fill(~accepted | (tree.depths != deepest), len(tree)).argmin()


def test_with_the_released_choices_the_relaxed_tokens_agree(
    target: OpenVLA, name: str, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "longest_accepted_node", first_longest_node)
    decoder = SpeculativeDecoder(target, FullDepthDrafter(drafter(target, name, legacy=True)), capacity=320)
    for index in INPUTS:
        for r in RELAXED:
            tokens, stats = decoder.decode(*inputs(arrays, index), (r,) * 7)
            released = arrays[f"{index}/r={r}/tokens"].tolist()
            lengths = arrays[f"{index}/r={r}/accept_lengths"].tolist()
            assert tokens[:7] == released[:7], f"input {index}, r={r}"
            assert list(stats.accepted) == lengths[: stats.rounds], f"input {index}, r={r}"


def test_ours_needs_no_more_rounds_than_the_released_code(
    target: OpenVLA, name: str, arrays: dict[str, np.ndarray]
) -> None:
    decoder = SpeculativeDecoder(target, drafter(target, name, legacy=False), capacity=320)
    for r in (None, *RELAXED):
        for index in INPUTS:
            _, stats = decoder.decode(*inputs(arrays, index), (r or 0,) * 7)
            assert stats.rounds <= len(arrays[f"{index}/r={r}/accept_lengths"]), f"input {index}, r={r}"
