"""The small policy that comes with the package: OpenVLA's layout, trained in simulation (its README.md says how)."""

from __future__ import annotations

from pathlib import Path

from specvla_ros.errors import CheckpointError
from specvla_ros.vla.checkpoint import resolve_checkpoint

NAME = "libero_spatial_small"


def checkpoint_directory(checkpoint: str | Path | None) -> Path:
    """Where a checkpoint lies: a directory as it is, a hub name once it is downloaded; None or "" is the shipped one.

    Raises:
        CheckpointError: it is not to be had.
    """
    return resolve_checkpoint(checkpoint) if checkpoint else shipped_checkpoint()


def hub_name(directory: Path) -> str:
    """`owner/name@revision` of what huggingface_hub downloaded to a directory of its cache; of any other none."""
    if directory.parent.name != "snapshots" or not directory.parents[1].name.startswith("models--"):
        return ""
    return f"{directory.parents[1].name.removeprefix('models--').replace('--', '/')}@{directory.name}"


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
