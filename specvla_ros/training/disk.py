"""Whether the disk can hold what is about to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from specvla_ros.errors import ConfigurationError


def require_disk(directory: Path, wanted: int, advice: str) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        wanted: bytes.
        advice: what takes less.

    Raises:
        ConfigurationError: there is less room.
    """
    if wanted > (free := shutil.disk_usage(directory).free):
        raise ConfigurationError(
            f"{directory} needs {wanted / 1e9:.1f} GB but its disk has {free / 1e9:.1f} GB free; {advice}"
        )
