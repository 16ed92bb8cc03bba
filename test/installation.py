"""What of ROS 2 the tests find installed."""

from __future__ import annotations

from pathlib import Path

NOT_INSTALLED = "specvla_ros is not in AMENT_PREFIX_PATH: source its workspace first"


def installed() -> bool:
    """Whether ROS 2 knows where this package is, so that a launch file can start its nodes."""
    return prefix_of("specvla_ros") is not None


def prefix_of(package: str) -> Path | None:
    """Where a ROS 2 package is installed, if it is."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        return Path(get_package_prefix(package))
    except (PackageNotFoundError, LookupError, OSError):
        return None
