"""Policy and LIBERO in closed loop: ros2 launch specvla_ros sim.launch.py suite:=libero_object task:=3 threshold:=3."""

from launch.actions import OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from specvla_ros.launching import (
    config_argument,
    configured_node,
    end_on_failure,
    parameter_arguments,
    parameters_in_file,
    room_for_images,
)
from specvla_ros.nodes.bridge_parameters import PARAMETERS as BRIDGE_PARAMETERS
from specvla_ros.nodes.policy_parameters import PARAMETERS as POLICY_PARAMETERS


def mode(context: LaunchContext) -> str:
    """The bridge's mode: the argument, else its YAML file's, else the default."""
    given = LaunchConfiguration("mode").perform(context)
    return given or parameters_in_file(context, "libero_config", "libero_bridge").get("mode", "lockstep")


def nodes(context: LaunchContext) -> list[Node]:
    # In realtime mode the bridge publishes /clock; lockstep goes by the wall clock.
    use_sim_time = mode(context) == "realtime"
    return [
        configured_node(
            context,
            "policy_node",
            "specvla",
            "policy_config",
            POLICY_PARAMETERS,
            fixed={"use_sim_time": use_sim_time},
            on_exit=end_on_failure,
        ),
        configured_node(
            context, "libero_bridge", "libero_bridge", "libero_config", BRIDGE_PARAMETERS, on_exit=Shutdown()
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            config_argument("policy_config", "policy.yaml"),
            config_argument("libero_config", "libero.yaml"),
            *parameter_arguments(POLICY_PARAMETERS, {"dry_run": "false"}),
            *parameter_arguments(BRIDGE_PARAMETERS),
            *room_for_images(),
            OpaqueFunction(function=nodes),
        ]
    )
