"""The policy node: ros2 launch specvla_ros policy.launch.py checkpoint:=/path/to/openvla draft:=hold threshold:=3."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from specvla_ros.launching import config_argument, configured_node, parameter_arguments, room_for_images
from specvla_ros.nodes.parameters import ParameterSpec
from specvla_ros.nodes.policy_parameters import PARAMETERS

# Every ROS node has the last one; where no YAML file names it, it is false.
ARGUMENTS = (*PARAMETERS, ParameterSpec("use_sim_time", False, "take the time from /clock"))
TOPICS = {
    "image_topic": ("image", "camera topic"),
    "instruction_topic": ("instruction", "topic of what to do, std_msgs/String"),
    "command_topic": ("ee_command", "topic of the commands, specvla_ros/EndEffectorCommand"),
    "twist_topic": ("delta_twist", "topic of the commands as geometry_msgs/TwistStamped"),
    "gripper_topic": ("gripper_position", "topic of the finger joints' position, std_msgs/Float64MultiArray"),
    "pose_topic": ("ee_pose", "topic of the hand's pose, geometry_msgs/PoseStamped, for the workspace box"),
    "estop_topic": ("estop", "topic of the emergency stop, std_msgs/Bool"),
}
# There may be an arm at the other end: it moves once the user has seen the commands and says so.
DEFAULTS = {"dry_run": "true"}


def policy_node(context: LaunchContext) -> list[Node]:
    remappings = [(topic, LaunchConfiguration(name).perform(context)) for name, (topic, _) in TOPICS.items()]
    # A remapping of `image` does not reach `image/compressed`.
    remappings.append(("image/compressed", f"{LaunchConfiguration('image_topic').perform(context)}/compressed"))
    return [
        configured_node(
            context,
            "policy_node",
            "specvla",
            "policy_config",
            ARGUMENTS,
            remappings=remappings,
            respawn=LaunchConfiguration("respawn"),
            respawn_delay=1.0,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            config_argument("policy_config", "policy.yaml"),
            *parameter_arguments(ARGUMENTS, DEFAULTS),
            *(
                DeclareLaunchArgument(name, default_value=topic, description=description)
                for name, (topic, description) in TOPICS.items()
            ),
            DeclareLaunchArgument(
                "respawn",
                default_value="false",
                description="start the node again when its process dies; with enabled_at_start:=false it then waits",
            ),
            *room_for_images(),
            OpaqueFunction(function=policy_node),
        ]
    )
