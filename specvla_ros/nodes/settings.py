"""What the policy node's parameters say, checked together and replaced as one: no action sees half a change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from specvla_ros.errors import ConfigurationError
from specvla_ros.nodes.parameters import check
from specvla_ros.nodes.policy_parameters import PARAMETERS, combine_thresholds
from specvla_ros.nodes.safety import Box, Values
from specvla_ros.policy import Thresholds


@dataclass(frozen=True, slots=True)
class Settings:
    """The parameters that every action and command obeys; config/policy.yaml says what they mean."""

    thresholds: Thresholds
    max_image_age: float
    max_instruction_age: float
    max_pose_age: float
    pose_required: bool
    hold_time: float
    dry_run: bool
    speed_limits: Values
    change_limits: Values
    workspace: Box
    position_scale: float
    gripper_decisions: int
    twist_frame: str
    linear_scale: float
    angular_scale: float
    gripper_closed: float
    gripper_open: float

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Settings:
        """From all parameters of the node by name.

        Raises:
            ConfigurationError: one of them, or two together, cannot be.
        """
        thresholds = combine_thresholds(values["threshold"], values["thresholds"])
        for spec in PARAMETERS:
            check(spec, values[spec.name])
        box = Box(np.array(values["workspace_low"]), np.array(values["workspace_high"]))
        if not (box.low < box.high).all():
            raise ConfigurationError(
                f"workspace_low {box.low.tolist()} is not below workspace_high {box.high.tolist()} on every axis"
            )
        return cls(
            thresholds=thresholds,
            speed_limits=np.array(values["speed_limits"]),
            change_limits=np.array(values["change_limits"]),
            workspace=box,
            **{
                name: values[name]
                for name in (
                    "max_image_age",
                    "max_instruction_age",
                    "max_pose_age",
                    "pose_required",
                    "hold_time",
                    "dry_run",
                    "position_scale",
                    "gripper_decisions",
                    "twist_frame",
                    "linear_scale",
                    "angular_scale",
                    "gripper_closed",
                    "gripper_open",
                )
            },
        )
