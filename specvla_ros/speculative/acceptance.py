"""Which drafted tokens the target's answers admit."""

from __future__ import annotations

import torch
from torch import Tensor

from specvla_ros.speculative.tree import DraftTree

NEVER = 1 << 16
"""A distance that no threshold admits."""


def deviations(tree: DraftTree, predictions: Tensor, action_ids: range) -> Tensor:
    """(n,) distance in bins of each node's token from the target's argmax after the node's parent; 0 for the root.

    Token ids of neighbouring bins are neighbours, so the distance of ids is the distance in bins (Spec-VLA's
    relaxed acceptance). A token that is not an action token has no bin: its distance is `NEVER`.

    Args:
        predictions: (n,) the target's argmax action token after each node.
        action_ids: the ids of the action tokens.
    """
    distance = (tree.tokens - predictions[tree.parents]).abs()
    no_action = (tree.tokens < action_ids.start) | (tree.tokens >= action_ids.stop)
    distance = torch.where(no_action, NEVER, distance)
    distance[:1].zero_()
    return distance


def longest_accepted_node(tree: DraftTree, distance: Tensor, limits: Tensor) -> Tensor:
    """The deepest node whose whole path lies within its limits; the nearest to the target among equally deep ones.

    Args:
        distance: (n,) `deviations` of the tree.
        limits: (depth + 1,) largest distance admitted at each depth of the tree; 0 everywhere is strict.

    Returns:
        Index of the node, a scalar tensor; 0 when no draft token is accepted.
    """
    refused = distance > limits[tree.depths]
    accepted = ~(tree.ancestors & refused).any(dim=1)
    path_distance = (tree.ancestors * distance).sum(dim=1)
    # One key orders by depth first and by distance second: seven times NEVER stays below 2^20.
    key = tree.depths * (1 << 20) - path_distance
    return key.masked_fill(~accepted, -1).argmax()
