"""A recorded episode drives LIBERO again: ros2 launch specvla_ros replay.launch.py bag:=/path/to/bag task:=0."""

from launch.actions import OpaqueFunction, Shutdown
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from specvla_ros.launching import config_argument, configured_node, end_on_failure, parameter_arguments, room_for_images
from specvla_ros.nodes.bridge_parameters import PARAMETERS as BRIDGE_PARAMETERS
from specvla_ros.nodes.replay_node import PARAMETERS as REPLAY_PARAMETERS

# `bag` is the bag to play here, not one to record.
PLAYED_BRIDGE_PARAMETERS = tuple(spec for spec in BRIDGE_PARAMETERS if not spec.name.startswith("bag"))


def nodes(context: LaunchContext) -> list[Node]:
    return [
        configured_node(context, "replay_node", "replay", "replay_config", REPLAY_PARAMETERS, on_exit=end_on_failure),
        configured_node(
            context, "libero_bridge", "libero_bridge", "libero_config", PLAYED_BRIDGE_PARAMETERS, on_exit=Shutdown()
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            config_argument("replay_config", "replay.yaml"),
            config_argument("libero_config", "libero.yaml"),
            *parameter_arguments(REPLAY_PARAMETERS),
            *parameter_arguments(PLAYED_BRIDGE_PARAMETERS),
            *room_for_images(),
            OpaqueFunction(function=nodes),
        ]
    )
