"""Which weights these are: their SHA-256, to be compared with the one that is expected."""

from __future__ import annotations

import hashlib
from pathlib import Path

from specvla_ros.errors import CheckpointError

BLOCK = 1 << 20


def weights_sha256(directory: Path) -> str:
    """Of the weight files, one after the other in the order of their names: `cat *.safetensors | sha256sum`.

    Raises:
        CheckpointError: there is none.
    """
    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("*.bin"))
    if not files:
        raise CheckpointError(f"{directory} holds no weights, neither .safetensors nor .bin")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while block := content.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def require_sha256(directory: Path, expected: str) -> None:
    """The weights are the expected ones.

    Raises:
        CheckpointError: they are others; nothing of them is to be used.
    """
    found = weights_sha256(directory)
    if found != expected.strip().lower():
        raise CheckpointError(
            f"the weights in {directory} have the SHA-256 {found}; expected {expected}: download them again, or "
            "correct what is expected (cat *.safetensors | sha256sum)"
        )
