"""What of ROS 2 the tests find installed."""

from __future__ import annotations

NOT_INSTALLED = "specvla_ros is not in AMENT_PREFIX_PATH: source its workspace first"


def installed() -> bool:
    """Whether ROS 2 knows where this package is, so that a launch file can start its nodes."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        return bool(get_package_prefix("specvla_ros"))
    except (PackageNotFoundError, LookupError, OSError):
        return False
