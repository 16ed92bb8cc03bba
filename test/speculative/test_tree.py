from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from specvla_ros.speculative.acceptance import deviations, longest_accepted_node
from specvla_ros.speculative.tree import DraftTree, merge

DEPTH = 6


@st.composite
def trees(draw: st.DrawFn, root: int = 100) -> DraftTree:
    count = draw(st.integers(0, 12))
    tokens, parents, depths = [root], [0], [0]
    for _ in range(count):
        parent = draw(st.sampled_from([index for index, depth in enumerate(depths) if depth < DEPTH]))
        tokens.append(draw(st.integers(96, 104)))
        parents.append(parent)
        depths.append(depths[parent] + 1)
    return DraftTree.from_parents(torch.tensor(tokens), torch.tensor(parents), DEPTH)


def path_to(tree: DraftTree, node: int) -> list[int]:
    """Node indices from the root's child down to `node`, by following parents."""
    path = []
    while node:
        path.append(node)
        node = int(tree.parents[node])
    return path[::-1]


@given(tree=trees())
def test_ancestors_and_depths_follow_the_parents(tree: DraftTree) -> None:
    for node in range(len(tree)):
        path = path_to(tree, node)
        assert tree.ancestors[node].nonzero().flatten().tolist() == [0, *path]
        assert tree.depths[node] == len(path)


@given(tree=trees(), data=st.data(), limits=st.lists(st.integers(0, 5), min_size=DEPTH, max_size=DEPTH))
def test_the_longest_accepted_path_wins_and_of_those_the_nearest(
    tree: DraftTree, data: st.DataObject, limits: list[int]
) -> None:
    answers = data.draw(st.lists(st.integers(96, 104), min_size=len(tree), max_size=len(tree)))
    distance = deviations(tree, torch.tensor(answers), range(98, 103))
    chosen = int(longest_accepted_node(tree, distance, torch.tensor([0, *limits])))

    accepted = {0: (0, 0)}
    for node in range(1, len(tree)):
        distances = [abs(int(tree.tokens[n]) - answers[int(tree.parents[n])]) for n in path_to(tree, node)]
        are_actions = all(98 <= int(tree.tokens[n]) <= 102 for n in path_to(tree, node))
        if are_actions and all(d <= limit for d, limit in zip(distances, limits, strict=False)):
            accepted[node] = (len(distances), -sum(distances))
    assert chosen in accepted
    assert accepted[chosen] == max(accepted.values())


@given(parts=st.lists(trees(), min_size=1, max_size=3))
def test_a_merged_tree_holds_every_path_of_its_parts(parts: list[DraftTree]) -> None:
    def token_paths(tree: DraftTree) -> list[tuple[int, ...]]:
        return [tuple(int(tree.tokens[n]) for n in path_to(tree, node)) for node in range(1, len(tree))]

    merged = merge(parts)
    assert sorted(token_paths(merged)) == sorted(path for part in parts for path in token_paths(part))
    rebuilt = DraftTree.from_parents(merged.tokens, merged.parents, DEPTH)
    assert torch.equal(merged.ancestors, rebuilt.ancestors) and torch.equal(merged.depths, rebuilt.depths)


def test_an_empty_path_is_the_bare_root() -> None:
    tree = DraftTree.path(torch.tensor([7]), [])
    assert tree.tokens.tolist() == [7] and tree.depths.tolist() == [0]
