from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import after, random_head, random_inputs, random_target

from specvla_ros.errors import CheckpointError, ConfigurationError
from specvla_ros.speculative.build import build_drafter, locate_drafts
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import History, Prefix
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig
from specvla_ros.speculative.history import HoldDrafter, LinearDrafter
from specvla_ros.training.draft import write_draft
from specvla_ros.vla.graphs import Eager
from specvla_ros.vla.model import OpenVLA

FIRST_ID = 64


@torch.inference_mode()
def prefilled(target: OpenVLA, tokens: list[int]) -> Prefix:
    """The prefix after a prefill that predicted the first of `tokens`, with the others committed."""
    ids, pixels = random_inputs(0)
    embeddings = target.embed_prompt(ids, target.project_image(pixels))
    cache = target.new_cache(300)
    prefix = Prefix(target, 300, Eager())
    prefix.begin(History(), len(embeddings), len(embeddings), padded=False)
    features = target(embeddings, torch.arange(len(embeddings)), cache)
    prefix.fill_prompt(embeddings, features, torch.tensor(tokens[:1]))
    prefix.tokens = tokens[:1]
    cache.commit(len(embeddings))
    for token in tokens[1:]:
        features = target(target.embed_tokens(prefix.newest), torch.tensor([cache.length]), cache)
        cache.commit(1)
        prefix.fill_path(features, torch.tensor([token]), torch.tensor([token]))
        prefix.tokens.append(token)
    return prefix


@settings(max_examples=40)
@given(
    nodes=st.integers(1, 80),
    depth=st.integers(0, 6),
    top_k=st.integers(1, 16),
    left=st.integers(0, 6),
    seed=st.integers(0, 999),
)
def test_eagle_obeys_nodes_depth_top_k_and_what_is_left(
    nodes: int, depth: int, top_k: int, left: int, seed: int
) -> None:
    target = random_target(seed)
    drafter = EagleDrafter(target, random_head(seed), capacity=300, tree=TreeConfig(nodes, depth, top_k))
    prefix = prefilled(target, [70])
    with torch.inference_mode():
        tree = drafter.draft(prefix, left)
    levels = min(depth + 1, left)
    pool = (top_k + (levels - 1) * top_k**2) if levels else 0
    assert len(tree) == min(nodes, pool + 1)
    assert int(tree.depths.max()) <= levels
    assert tree.tokens[0] == 70
    assert all(int(parent) < node for node, parent in enumerate(tree.parents.tolist()) if node)
    children: dict[int, list[int]] = {}
    for node in range(1, len(tree)):
        children.setdefault(int(tree.parents[node]), []).append(int(tree.tokens[node]))
    assert all(len(set(tokens)) == len(tokens) <= top_k for tokens in children.values())


@torch.inference_mode()
def test_the_eagle_tree_holds_the_most_likely_paths_of_the_head() -> None:
    """Against the head run on each path from scratch, with no tree, no mask and no cache."""
    target, head = random_target(3), random_head(3)
    prefix = prefilled(target, [70, 81, 92])
    drafter = EagleDrafter(target, head, capacity=300, tree=TreeConfig(nodes=30, depth=3, top_k=4))
    drafter.draft(prefilled(target, [70]), 4)
    tree = drafter.draft(prefix, 4)

    def log_probabilities(path: list[int]) -> torch.Tensor:
        """The head's answer after drafting `path`: target features for the prefix, its own features behind it."""
        length = prefix.length
        embeddings, features = prefix.next_embeddings[:length], prefix.features[:length]
        for step in range(len(path) + 1):
            cache = EagleDrafter(target, head, capacity=300, tree=TreeConfig())._cache
            outputs = head(embeddings, features, torch.arange(len(embeddings)), cache, None)
            if step < len(path):
                embeddings = torch.cat([embeddings, target.embed_tokens(torch.tensor(path[step : step + 1]))])
                features = torch.cat([features, outputs[-1:]])
        return target.action_logits(outputs[-1:])[0].log_softmax(dim=0)

    beam: list[tuple[float, list[int]]] = [(0.0, [])]
    pool: list[tuple[float, list[int]]] = []
    for _ in range(4):
        children = []
        for score, path in beam:
            values, index = log_probabilities(path).topk(4)
            children += [(score + float(v), [*path, int(i) + FIRST_ID]) for v, i in zip(values, index, strict=True)]
        pool += children
        beam = sorted(children, reverse=True)[:4]
    expected = sorted(path for _, path in sorted(pool, reverse=True)[:29])
    drafted = sorted(
        [int(tree.tokens[n]) for n in tree.ancestors[node].nonzero().flatten()][1:] for node in range(1, len(tree))
    )
    assert drafted == expected


@pytest.mark.parametrize("sizes", [{"nodes": 0}, {"depth": -1}, {"top_k": 0}, {"top_k": 257}])
def test_impossible_tree_parameters_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="draft tree"):
        EagleDrafter(random_target(0), random_head(0), capacity=300, tree=TreeConfig(**sizes))


def test_a_draft_for_another_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="hidden size is 32 but the target's is 16"):
        EagleDrafter(random_target(0), random_head(0, hidden_size=32), capacity=300, tree=TreeConfig())


def test_a_draft_from_disk_works_in_the_targets_own_type(tmp_path: Path) -> None:
    head = random_head(0)
    write_draft(tmp_path, head.config, head)
    target = random_target(0).bfloat16()
    drafter = build_drafter(str(tmp_path), target, 300, TreeConfig())
    tokens, stats = SpeculativeDecoder(target, drafter, capacity=300).decode(*random_inputs(0), (0,) * 7)
    assert len(tokens) == 7 and stats.forwards == 1 + len(stats.accepted)


def test_a_plus_in_a_directorys_name_joins_no_drafts(tmp_path: Path) -> None:
    inner = tmp_path / "openvla-7b+libero_spatial+b16" / "draft"
    outer = tmp_path / "draft"
    for directory in (inner, outer):
        directory.mkdir(parents=True)
    assert locate_drafts(str(inner), None) == {str(inner): inner}
    joined = locate_drafts(f"hold + {inner}+{outer}+linear", None)
    assert list(joined.items()) == [("hold", None), (str(inner), inner), (str(outer), outer), ("linear", None)]


def test_drafts_whose_trees_do_not_fit_the_cache_together_are_refused_before_an_action_needs_them(
    tmp_path: Path,
) -> None:
    head, target = random_head(0), random_target(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_draft(tmp_path / name, head.config, head)
    both, large = f"{tmp_path}/a+{tmp_path}/b", TreeConfig(nodes=200, depth=6, top_k=16)
    with pytest.raises(ConfigurationError, match=r"tree_nodes 200: a tree may have 399 nodes; at most 256 fit"):
        build_drafter(both, target, 300, large)
    largest = build_drafter(both, target, 300, replace(large, nodes=128))
    decoder = SpeculativeDecoder(target, largest, capacity=300)
    longest = 300 - 256 - 7
    assert len(decoder.decode(*random_inputs(0, longest), (0,) * 7)[0]) == 7


def test_a_draft_that_says_so_is_run_as_the_released_code_does(tmp_path: Path) -> None:
    head = random_head(0)
    write_draft(tmp_path, head.config, head)
    target, config = random_target(0), tmp_path / "config.json"
    wanted = EagleDrafter(target, head, capacity=300, tree=TreeConfig(legacy=True))
    prefix = prefilled(target, [70, 71])
    usual = build_drafter(str(tmp_path), target, 300, TreeConfig()).draft(prefix, 6)
    said = json.loads(config.read_text())
    config.write_text(json.dumps(said | {"legacy_draft": True}))
    legacy = build_drafter(str(tmp_path), target, 300, TreeConfig()).draft(prefix, 6)
    assert torch.equal(legacy.tokens, wanted.draft(prefix, 6).tokens)
    assert not torch.equal(legacy.tokens, usual.tokens)
    config.write_text(json.dumps(said | {"legacy_draft": "yes"}))
    with pytest.raises(CheckpointError, match=r"config.json: legacy_draft is 'yes'; expected true or false"):
        build_drafter(str(tmp_path), target, 300, TreeConfig())


def test_hold_drafts_the_rest_of_the_last_action_and_nothing_in_a_new_episode() -> None:
    prefix = prefilled(random_target(0), [70, 71])
    hold = HoldDrafter()
    assert hold.draft(prefix, 4).tokens.tolist() == [71]
    prefix.history = after([200] * 7, [100, 101, 102, 103, 104, 105, 106])
    assert hold.draft(prefix, 4).tokens.tolist() == [71, 102, 103, 104, 105]
    assert hold.draft(prefix, 0).tokens.tolist() == [71]


def test_linear_extrapolates_clips_and_holds_the_gripper() -> None:
    prefix = prefilled(random_target(0), [70])
    linear = LinearDrafter(range(FIRST_ID, 320))
    assert linear.draft(prefix, 6).tokens.tolist() == [70]
    first, second = [100, 100, 100, 100, 70, 310, 100], [100, 103, 98, 100, 65, 318, 110]
    prefix.history = after(first)
    assert linear.draft(prefix, 6).tokens.tolist() == [70, *first[1:]], "one action: hold it"
    prefix.history = after(first, second)
    assert linear.draft(prefix, 6).tokens.tolist() == [70, 106, 96, 100, 64, 319, 110]
