"""ROS 2 and this package's messages, which the decoder does without and an installation may lack."""

from __future__ import annotations

from specvla_ros.errors import ConfigurationError

SOURCED = "source a ROS 2 installation, or: make venv"
BUILT = "the package was not installed: run make venv, or colcon build and source install/setup.bash"
"""What to do, where rclpy or the messages are missing."""


def require_ros(command: str) -> None:
    """So that a command that needs ROS says so before it begins.

    Args:
        command: as the sentence begins.

    Raises:
        ConfigurationError: rclpy cannot be imported, or the messages cannot be used.
    """
    try:
        import rclpy  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"{command} needs rclpy, which cannot be imported ({error}); {SOURCED}") from error
    try:
        load_messages()
    except Exception as error:  # there is one of rclpy's own where they were built for another ROS 2
        raise ConfigurationError(f"{command} needs the package's messages ({error}); {BUILT}") from error


def load_messages() -> None:
    """As a publisher would; raises what keeps it from that."""
    from rclpy.type_support import check_is_valid_msg_type

    from specvla_ros.msg import EndEffectorCommand

    check_is_valid_msg_type(EndEffectorCommand)
