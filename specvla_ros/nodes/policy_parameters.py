"""The policy node's parameters; config/policy.yaml is their commented reference."""

from __future__ import annotations

from collections.abc import Sequence

from specvla_ros.errors import ConfigurationError
from specvla_ros.nodes.parameters import ParameterSpec
from specvla_ros.nodes.safety import AXES, POSITION_AXES
from specvla_ros.policy import ACTION_DIMENSIONS, ACTION_LENGTH, MAX_THRESHOLD, Thresholds, expand_thresholds

FOLLOW = -1
"""In `thresholds`: this dimension takes `threshold`."""

PARAMETERS = (
    ParameterSpec(
        "policy",
        "openvla",
        "openvla, or fake: a stand-in without a model to try the wiring",
        choices=("openvla", "fake"),
    ),
    ParameterSpec(
        "checkpoint",
        "",
        "OpenVLA checkpoint: directory, hub name, name@revision; empty is this package's small model",
    ),
    ParameterSpec("checkpoint_sha256", "", "of the checkpoint's weights; others are not loaded. Empty: not checked"),
    ParameterSpec("unnorm_key", "", "norm_stats key of the checkpoint; may stay empty when it has only one"),
    ParameterSpec(
        "image_preparation",
        "auto",
        "before the processor: libero (rotate, JPEG, Lanczos, centre crop), centre_crop (the same without rotating), "
        "none, or auto: libero for libero keys, else none",
        choices=("auto", "libero", "centre_crop", "none"),
    ),
    ParameterSpec(
        "draft",
        "hold",
        "none, hold, linear, eagle (the checkpoint's own), a directory or hub name, or several: A+B; another one "
        "brings the arm to rest",
        live=True,
    ),
    ParameterSpec(
        "draft_sha256", "", "of a learned draft's weights; others are not loaded. Empty: not checked", live=True
    ),
    ParameterSpec(
        "threshold",
        0,
        "largest accepted distance in bins of a draft token from the model's own; 0 is greedy decoding",
        range=(0, MAX_THRESHOLD),
        live=True,
    ),
    ParameterSpec(
        "thresholds",
        [FOLLOW] * (ACTION_LENGTH - 1) + [0],
        "the same for x, y, z, roll, pitch, yaw, gripper; -1 takes `threshold`, the gripper is exact by default",
        range=(FOLLOW, MAX_THRESHOLD),
        live=True,
    ),
    ParameterSpec("tree_nodes", 50, "nodes of a learned draft's tree, the root included", range=(1, 256)),
    ParameterSpec("tree_depth", 4, "expansions of the tree after its first level", range=(0, 6)),
    ParameterSpec("tree_top_k", 8, "children of a tree node, and nodes expanded at each level", range=(1, 64)),
    ParameterSpec("legacy_draft", False, "draft as the released Spec-VLA code does, for weights trained with it"),
    ParameterSpec("device", "auto", "auto (a GPU where there is one), cpu, cuda or cuda:N"),
    ParameterSpec(
        "dtype",
        "auto",
        "auto (bfloat16 on a GPU, float32 on a CPU), float32, bfloat16 or float16",
        choices=("auto", "float32", "bfloat16", "float16"),
    ),
    ParameterSpec(
        "weights",
        "full",
        "full, or float8 or int8: the language model in 8 bits, other tokens now and then",
        choices=("full", "float8", "int8"),
    ),
    ParameterSpec("cuda_graphs", True, "on a GPU: record every pass at load; false starts each operation by itself"),
    ParameterSpec(
        "cpu_threads", 1, "torch threads on a CPU; for a small model several wait for each other", range=(1, 256)
    ),
    ParameterSpec(
        "image_transport", "raw", "raw: topic image; compressed: topic image/compressed", choices=("raw", "compressed")
    ),
    ParameterSpec(
        "image_reliability",
        "best_effort",
        "best_effort: hears every camera, a lost image is lost; reliable: hears reliable publishers only",
        choices=("best_effort", "reliable"),
    ),
    ParameterSpec(
        "max_image_age",
        1.0,
        "an image older than so many seconds by its stamp gives no command; 0 switches the check off",
        range=(0.0, 3600.0),
        live=True,
    ),
    ParameterSpec(
        "max_instruction_age",
        0.0,
        "an instruction that came more than so many seconds ago moves nothing; 0 switches the check off",
        range=(0.0, 86400.0),
        live=True,
    ),
    ParameterSpec(
        "command_rate", 30.0, "the last command is repeated so many times a second while it holds", range=(20.0, 50.0)
    ),
    ParameterSpec(
        "hold_time",
        0.5,
        "seconds after its image's stamp that a command is repeated; then one command without motion, then nothing",
        range=(0.0, 10.0),
        live=True,
    ),
    ParameterSpec(
        "dry_run",
        False,
        "mark every command as one that moves nothing, and send no delta_twist and no gripper_position",
        live=True,
    ),
    ParameterSpec(
        "autostart", True, "configure and activate at the start; false: wait for a lifecycle manager or ros2 lifecycle"
    ),
    ParameterSpec(
        "enabled_at_start",
        True,
        "false: a process that starts, or starts again, moves nothing until its service ~/enable is called",
    ),
    ParameterSpec(
        "estop_required",
        False,
        "nothing moves until a message has come on estop, and once a publisher of it is lost, until ~/enable is called",
        live=True,
    ),
    ParameterSpec(
        "speed_limits",
        [1.0] * AXES,
        "largest magnitude of x, y, z, roll, pitch, yaw of a command, in the action's units",
        range=(0.0, 1000.0),
        live=True,
    ),
    ParameterSpec(
        "change_limits",
        [2.0] * AXES,
        "largest change of x, y, z, roll, pitch, yaw from one command to the next, in the action's units",
        range=(0.0, 2000.0),
        live=True,
    ),
    ParameterSpec(
        "workspace_low",
        [-10.0] * POSITION_AXES,
        "lowest x, y, z of the hand in metres, in the frame of the topic ee_pose",
        range=(-1000.0, 1000.0),
        live=True,
    ),
    ParameterSpec(
        "workspace_high",
        [10.0] * POSITION_AXES,
        "highest x, y, z of the hand in metres, in the frame of the topic ee_pose",
        range=(-1000.0, 1000.0),
        live=True,
    ),
    ParameterSpec(
        "position_scale", 1.0, "metres that one unit of delta_position moves the hand", range=(0.0001, 100.0)
    ),
    ParameterSpec(
        "max_pose_age",
        0.5,
        "a hand whose ee_pose came once and is older than so many seconds by its stamp does not move",
        range=(0.01, 60.0),
        live=True,
    ),
    ParameterSpec(
        "pose_required", False, "nothing moves until ee_pose has come; false: the box is then not applied", live=True
    ),
    ParameterSpec(
        "gripper_decisions",
        1,
        "so many actions in a row must say so before the gripper opens or closes; 1: each is believed",
        range=(1, 20),
        live=True,
    ),
    ParameterSpec("twist_frame", "base_link", "frame_id of delta_twist, and of ee_pose"),
    ParameterSpec("linear_scale", 1.0, "m/s in delta_twist for one unit of delta_position", range=(0.0, 100.0)),
    ParameterSpec("angular_scale", 1.0, "rad/s in delta_twist for one unit of delta_rotation", range=(0.0, 100.0)),
    ParameterSpec(
        "gripper_closed", 0.0, "position of the finger joints in gripper_position when closed", range=(-10.0, 10.0)
    ),
    ParameterSpec(
        "gripper_open", 0.04, "position of the finger joints in gripper_position when open", range=(-10.0, 10.0)
    ),
)


def combine_thresholds(threshold: int, thresholds: Sequence[int]) -> Thresholds:
    """The seven thresholds in force.

    Raises:
        ConfigurationError: not seven whole numbers of -1 .. 255.
    """
    if len(thresholds) != ACTION_LENGTH:
        raise ConfigurationError(
            f"thresholds has {len(thresholds)} values; expected one for each of {', '.join(ACTION_DIMENSIONS)}, "
            "-1 where `threshold` counts"
        )
    return expand_thresholds([threshold if value == FOLLOW else value for value in thresholds])
