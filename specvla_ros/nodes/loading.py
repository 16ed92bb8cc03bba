"""The policy that the parameters ask for, from nothing to warm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.logging import get_logger

from specvla_ros.errors import SpecVLAError
from specvla_ros.policy import Policy

if TYPE_CHECKING:
    from specvla_ros.speculative.build import TreeConfig

QUARTERS = 4
WARM_UP_SIZE = 256
"""Height and width in pixels of the grey image that warms a policy up."""


def load_from_parameters(values: dict[str, Any]) -> Policy:
    """Load the policy and decode one action with it: the first takes longer, and may find that memory is short."""
    if values["policy"] == "fake":
        from specvla_ros.fake_policy import FakePolicy

        return FakePolicy()
    import torch

    from specvla_ros.runtime import load_policy

    torch.set_num_threads(values["cpu_threads"])
    policy = load_policy(
        values["checkpoint"] or None,
        draft=values["draft"],
        device=values["device"],
        dtype=values["dtype"],
        unnorm_key=values["unnorm_key"] or None,
        preparation=values["image_preparation"],
        sha256=values["checkpoint_sha256"],
        draft_sha256=values["draft_sha256"],
        tree=_tree(values),
        weights=values["weights"],
        graphs=values["cuda_graphs"],
        advance=_log_progress,
    )
    get_logger("specvla").info(f"image_preparation is {policy.preparation}")
    policy.act(np.full((WARM_UP_SIZE, WARM_UP_SIZE, 3), 128, np.uint8), "warm up")
    policy.reset()
    return policy


def with_draft(policy: Policy, values: dict[str, Any]) -> Policy:
    """The same weights behind the draft that the parameters ask for; a policy without drafts stays as it is.

    Raises:
        SpecVLAError: there is no such draft, or it does not fit the model.
    """
    if values["policy"] == "fake":
        return policy
    from specvla_ros.runtime import OpenVLAPolicy

    if not isinstance(policy, OpenVLAPolicy):
        return policy
    return policy.with_draft(values["draft"], policy.thresholds, _tree(values), values["draft_sha256"])


def _log_progress(done: int, of: int) -> None:
    """A line for each quarter of the CUDA graphs."""
    if done * QUARTERS % of < QUARTERS:
        get_logger("specvla").info(f"recorded {done} of {of} CUDA graphs")


def _tree(values: dict[str, Any]) -> TreeConfig:
    from specvla_ros.speculative.build import TreeConfig

    return TreeConfig(values["tree_nodes"], values["tree_depth"], values["tree_top_k"], legacy=values["legacy_draft"])


def describe(error: Exception) -> str:
    """Our own errors are sentences; another's type is worth knowing."""
    return str(error) if isinstance(error, SpecVLAError) else f"{type(error).__name__}: {error}"
