"""OpenVLA on a robot, fast: speculative decoding with a live acceptance threshold, as ROS 2 nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specvla_ros.policy import Action, Policy
    from specvla_ros.runtime import OpenVLAPolicy, load_policy

__all__ = ["Action", "OpenVLAPolicy", "Policy", "load_policy"]

_HOMES = {
    "Action": "specvla_ros.policy",
    "Policy": "specvla_ros.policy",
    "OpenVLAPolicy": "specvla_ros.runtime",
    "load_policy": "specvla_ros.runtime",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the nodes that need no model must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
