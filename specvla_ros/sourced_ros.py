"""A sourced ROS 2 beside an environment that has one of its own, as make venv builds it: their libraries do not mix."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SEARCH_PATHS = ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")


def leave_sourced_ros() -> None:
    """Start this program again without the sourced ROS 2, if the environment has its own.

    Python and the loader have read their search paths by now, so it is too late to change them here.
    """
    own = Path(sys.prefix)
    sourced = [prefix for prefix in _folders("AMENT_PREFIX_PATH") if prefix != own]
    if not _has_ros(own) or not any(map(_has_ros, sourced)):
        return
    environment = dict(os.environ)
    environment.pop("RMW_IMPLEMENTATION", None)  # its own has Fast DDS alone
    for name in SEARCH_PATHS:
        kept = [str(folder) for folder in _folders(name) if not any(map(folder.is_relative_to, sourced))]
        environment.pop(name, None)
        if kept:
            environment[name] = os.pathsep.join(kept)
    os.execve(sys.executable, sys.orig_argv, environment)


def _folders(variable: str) -> list[Path]:
    return [Path(folder) for folder in os.environ.get(variable, "").split(os.pathsep) if folder]


def _has_ros(prefix: Path) -> bool:
    return (prefix / "share" / "rclpy").is_dir()
