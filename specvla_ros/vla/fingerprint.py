"""Which weights these are: their SHA-256, to be compared with the one that is expected, or a quick mark of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from specvla_ros.errors import CheckpointError

BLOCK = 1 << 20
MARK_LENGTH = 16
"""Hexadecimal digits."""


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


def weights_mark(directories: Iterable[Path]) -> str:
    """A mark of all the weight files in some directories, which other weights do not have: whoever trains to the same
    folder again, or copies another fine-tune there, changes it.

    Of a large file it reads three pieces only, so that gigabytes take no time. Directories that do not exist, and where
    the files lie, do not count.
    """
    digest = hashlib.sha256()
    for directory in directories:
        for file in sorted([*directory.glob("*.safetensors"), *directory.glob("*.bin")]):
            size = file.stat().st_size
            digest.update(f"{file.name} {size} ".encode())
            with file.open("rb") as content:
                for start in (0, size // 2, max(size - BLOCK, 0)):
                    content.seek(start)
                    digest.update(content.read(BLOCK))
    return digest.hexdigest()[:MARK_LENGTH]


def settings_mark(directories: Iterable[Path]) -> str:
    """A mark of what checkpoints say beside their weights: sizes, statistics and tokenizer decide the actions too."""
    digest = hashlib.sha256()
    for directory in directories:
        for file in sorted(directory.glob("*.json")):
            digest.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()[:MARK_LENGTH]


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
