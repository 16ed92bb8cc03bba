"""What `specvla train demos` records, and whether a folder's recordings are of that kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.json_file import replace_json

OPTIONS_FILE = "options.json"


@dataclass(frozen=True, slots=True)
class CollectOptions:
    """What to record.

    Attributes:
        tasks: which tasks of the suite; None is every one that an expert can try.
        demonstrations: for each task.
        image_size: height and width in pixels.
        fast_rendering: fewer triangles and no reflections; a policy must then be evaluated with it too.
        disturbed: whether noise is injected for the expert to correct (DART).
        checkpoint: a target that drives part of the way, so that the expert corrects its mistakes (DAgger); none if
            empty. It takes the place of the noise.
        skip: starts to leave out, so that a second round of corrections meets others than the first.
        workers: parallel simulator processes, each with about 1.1 GB of memory.
    """

    output: Path
    suite: str = "libero_spatial"
    tasks: tuple[int, ...] | None = None
    demonstrations: int = 50
    image_size: int = 256
    fast_rendering: bool = True
    disturbed: bool = True
    checkpoint: str = ""
    skip: int = 0
    workers: int = 1

    def decisive(self) -> dict[str, Any]:
        """What all recordings of a folder share: a policy learns from them together."""
        return {
            "image_size": self.image_size,
            "fast_rendering": self.fast_rendering,
            "disturbed": self.disturbed and not self.checkpoint,
            "corrected": bool(self.checkpoint),
        }


def claim_output(options: CollectOptions) -> None:
    """Make the output, and write down there how it is recorded.

    Raises:
        ConfigurationError: it holds recordings that were made otherwise.
        OSError: it cannot be made.
    """
    options.output.mkdir(parents=True, exist_ok=True)
    path, wanted = options.output / OPTIONS_FILE, options.decisive()
    if path.is_file() and any(options.output.rglob("*.hdf5")):
        try:
            found = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"{path} cannot be read ({error}); give another output folder") from error
        if differing := [name for name in wanted if found.get(name) != wanted[name]]:
            what = ", ".join(f"{name} {found.get(name)}, not {wanted[name]}" for name in differing)
            raise ConfigurationError(
                f"{options.output} was recorded with {what}; give the same options to go on, or another output folder"
            )
    else:
        replace_json(path, wanted)
