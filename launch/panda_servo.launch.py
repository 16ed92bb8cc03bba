"""The policy in front of MoveIt Servo and a Franka Panda: ros2 launch specvla_ros panda_servo.launch.py.

docs/arm.md says what must run beside it. Every argument of policy.launch.py may be given too.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription
from specvla_ros.share import share_folder

# Servo's answer to moveit_msgs/srv/ServoCommandType: 1 is TWIST.
TAKE_TWISTS = ("ros2", "service", "call", "/servo_node/switch_command_type")


def generate_launch_description() -> LaunchDescription:
    wiring = {
        "policy_config": str(share_folder() / "config" / "panda_servo.yaml"),
        "twist_topic": "/servo_node/delta_twist_cmds",
        "gripper_topic": "/panda_hand_controller/commands",
        "pose_topic": "/franka_robot_state_broadcaster/current_pose",
    }
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description="see policy.launch.py")
                for name, value in wiring.items()
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(share_folder() / "launch" / "policy.launch.py")),
                launch_arguments=[(name, LaunchConfiguration(name)) for name in wiring],
            ),
            ExecuteProcess(
                cmd=[*TAKE_TWISTS, "moveit_msgs/srv/ServoCommandType", "{command_type: 1}"], output="screen"
            ),
        ]
    )
