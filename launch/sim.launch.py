"""Policy and LIBERO in closed loop: ros2 launch specvla_ros sim.launch.py suite:=libero_object task:=3 threshold:=3."""

from launch.actions import OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from specvla_ros.launching import config_argument, configured_node, parameter_arguments
from specvla_ros.nodes.bridge_parameters import PARAMETERS as BRIDGE_PARAMETERS
from specvla_ros.nodes.policy_parameters import PARAMETERS as POLICY_PARAMETERS


def nodes(context: LaunchContext) -> list[Node]:
    # In realtime mode the bridge publishes /clock; lockstep goes by the wall clock.
    use_sim_time = LaunchConfiguration("mode").perform(context) == "realtime"
    return [
        configured_node(
            context,
            "policy_node",
            "specvla",
            "policy_config",
            POLICY_PARAMETERS,
            fixed={"use_sim_time": use_sim_time},
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
            *parameter_arguments(POLICY_PARAMETERS),
            *parameter_arguments(BRIDGE_PARAMETERS),
            OpaqueFunction(function=nodes),
        ]
    )
