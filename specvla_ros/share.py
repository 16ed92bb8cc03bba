"""Where config/, launch/ and msg/ of this package lie, however it was installed."""

from __future__ import annotations

import sysconfig
from pathlib import Path

PACKAGE = "specvla_ros"


def share_folder() -> Path:
    """The source tree of an editable install, the workspace that colcon built, or the environment that pip filled.

    The last is asked for directly because a plain Python environment sets no AMENT_PREFIX_PATH.
    """
    source = Path(__file__).resolve().parents[1]
    if (source / "package.xml").is_file():
        return source
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return Path(get_package_share_directory(PACKAGE))
    except (PackageNotFoundError, OSError):
        return Path(sysconfig.get_path("data")) / "share" / PACKAGE
