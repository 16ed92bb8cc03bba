"""What recorded a bag, in a small file beside its messages: tokens repeat only where all of it is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from specvla_ros.shipped import checkpoint_directory
from specvla_ros.vla.fingerprint import weights_sha256

FILE = "recording.json"


def origin(checkpoint: str) -> dict[str, Any]:
    """What decides a strict decoder's tokens beside its inputs.

    Args:
        checkpoint: directory or hub name; empty is the package's own.
    """
    import torch

    return {
        "weights_sha256": weights_sha256(checkpoint_directory(checkpoint)),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def write_origin(bag: Path, content: dict[str, Any]) -> None:
    """Into the bag's folder."""
    (bag / FILE).write_text(json.dumps(content, indent=2) + "\n")


def read_origin(bag: Path) -> dict[str, Any]:
    """Empty for a bag that says nothing, such as a robot's."""
    file = bag / FILE
    return json.loads(file.read_text()) if file.is_file() else {}


def changes(bag: Path, checkpoint: str) -> list[str]:
    """A sentence for each thing that is not as it was when the bag was recorded."""
    recorded = read_origin(bag)
    return [
        f"recorded with {name} {recorded[name]}, replayed with {now}"
        for name, now in (origin(checkpoint) if recorded else {}).items()
        if recorded.get(name, now) != now
    ]
