"""The small policy that comes with the package: OpenVLA's layout, trained in simulation (its README.md says how)."""

from __future__ import annotations

from pathlib import Path

from specvla_ros.errors import CheckpointError

NAME = "libero_spatial_small"


def shipped_checkpoint() -> Path:
    """Its directory.

    Raises:
        CheckpointError: it was left out of this installation.
    """
    directory = Path(__file__).parent / "weights" / NAME
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"{directory} is missing from this installation; install the package again, or give a checkpoint"
        )
    return directory
