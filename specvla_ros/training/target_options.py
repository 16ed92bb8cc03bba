"""How a small target is trained."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specvla_ros.errors import ConfigurationError
from specvla_ros.training.target_sizes import TargetSizes


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """How to train.

    Attributes:
        data: folders of demonstrations.
        output: gets `checkpoint` (the result), log.csv, log.png and state.pt, from which the same call goes on.
        start: output of another run, or a checkpoint, whose weights this one begins with; from nothing if None.
        cache: where the prepared frames are kept; OUTPUT/frames when None.
        steps: the learning rate falls to 0 over so many.
        minutes: ends sooner, with the learning rate at 0, where the steps would take longer; None does not.
        warm_up: steps over which the learning rate rises.
        augmentation: part of OpenVLA's random crop and colour change that is used, 0 to 1.
        every: steps between two validations, each of which also writes the state and the checkpoint.
        dtype: "float32", "bfloat16" (matrix products only; the weights stay float32), or "auto": bfloat16 on a GPU.
        compile: have torch compile the model first: a minute's wait, and a sixth more samples a second on a CPU.
        threads: of torch on a CPU; its own choice when None.
        workers: processes that prepare frames; one a core when None.
    """

    data: tuple[Path, ...]
    output: Path
    start: Path | None = None
    cache: Path | None = None
    sizes: TargetSizes = field(default_factory=TargetSizes)
    steps: int = 20_000
    minutes: float | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    warm_up: int = 200
    every: int = 500
    augmentation: float = 1.0
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    threads: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "every", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; expected more than 0")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigurationError(f"minutes is {self.minutes}; expected more than 0")
        if not 0.0 <= self.augmentation <= 1.0:
            raise ConfigurationError(f"augmentation is {self.augmentation}; expected 0 to 1")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigurationError(f"dtype {self.dtype!r} is not one; expected auto, float32 or bfloat16")

    def decisive(self) -> dict[str, Any]:
        """What must be equal for a run to go on from another's state; the time budget may be moved."""
        names = ("sizes", "steps", "batch_size", "learning_rate", "warm_up", "augmentation", "seed")
        fields = dataclasses.asdict(self)
        return {name: fields[name] for name in names} | {"start": str(self.start.resolve()) if self.start else None}
