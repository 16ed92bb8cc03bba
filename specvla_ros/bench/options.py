"""What a benchmark runs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from specvla_ros.bench.sizes import SIZES
from specvla_ros.errors import ConfigurationError
from specvla_ros.policy import PLAIN
from specvla_ros.runtime import WEIGHTS

THRESHOLDS = (0, 3, 9, 15)
"""Strict, and relaxed as far as Spec-VLA studied it, in bins."""
PAPER = "paper"
CHECKPOINT_DRAFTS = ("hold", "linear", "hold+linear")
SIZE_DRAFTS = ("eagle",)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Options of `specvla bench`.

    Attributes:
        checkpoint, unnorm_key, device, dtype: see `specvla_ros.load_policy`.
        size: random weights of these sizes instead of a checkpoint's; empty for none.
        drafts: names as `load_policy` takes them; with a size, `eagle` is an untrained head of that size. None: all
            that need no weights for a checkpoint, `eagle` for a size.
        imposed: PAPER, or files that the benchmark wrote: rows whose accepted lengths are drawn from there.
        frames: recorded images (see `specvla_ros.bench.frames`); None: of an episode rendered on the spot.
        save_frames: where the images are kept for another machine; None: nowhere.
        count: images, at most.
        threads: of torch on the CPU; 0 leaves torch's own choice.
        fast_rendering: of the episode rendered on the spot.
        weights: more rows of plain greedy decoding, with weights of these kinds (see `load_policy`).
        ahead: the next image comes while one is decoded, as from a fast camera; on a GPU it is prepared meanwhile.
        output: folder of the tables and the plot.
    """

    checkpoint: str = ""
    size: str = ""
    drafts: tuple[str, ...] = ()
    imposed: tuple[str, ...] = ()
    frames: Path | None = None
    save_frames: Path | None = None
    count: int = 100
    device: str = "auto"
    dtype: str = "auto"
    unnorm_key: str = ""
    threads: int = 0
    fast_rendering: bool = True
    weights: tuple[str, ...] = ()
    ahead: bool = False
    output: Path = Path("runs/bench")

    def __post_init__(self) -> None:
        if self.size and self.size not in SIZES:
            raise ConfigurationError(f"size {self.size!r} is not one; expected {' or '.join(SIZES)}")
        if self.size and (self.checkpoint or self.unnorm_key):
            raise ConfigurationError("a size has random weights: give a checkpoint and its unnorm_key, or a size")
        if PLAIN in self.drafts:
            raise ConfigurationError(f"draft {PLAIN} is the row of plain greedy decoding, which is always there")
        if unknown := set(self.weights) - set(WEIGHTS[1:]):
            raise ConfigurationError(f"weights {', '.join(sorted(unknown))}: expected {' or '.join(WEIGHTS[1:])}")
        if self.count < 2:
            raise ConfigurationError(f"count is {self.count}; expected at least 2 images")

    @property
    def draft_names(self) -> tuple[str, ...]:
        """The drafts asked for, each once, or the usual ones."""
        return tuple(dict.fromkeys(self.drafts)) or (SIZE_DRAFTS if self.size else CHECKPOINT_DRAFTS)

    @property
    def distributions(self) -> tuple[str, ...]:
        """Where imposed lengths come from, each once; of random weights' own lengths there is nothing to learn."""
        return tuple(dict.fromkeys(self.imposed)) or ((PAPER,) if self.size else ())

    def command(self) -> str:
        """What measures this again."""
        words = ["specvla", "bench"]
        for name in ("checkpoint", "size", "unnorm_key"):
            if value := getattr(self, name):
                words += [_option(name), value]
        words += [word for draft in self.draft_names for word in ("--draft", draft)]
        words += [word for source in self.distributions for word in ("--imposed", source)]
        words += [word for kind in self.weights for word in ("--weights", kind)]
        if self.frames:
            words += ["--frames", str(self.frames)]
        elif self.fast_rendering == bool(self.checkpoint):  # not what it is without being given
            words.append("--fast-rendering" if self.fast_rendering else "--no-fast-rendering")
        words += ["--count", str(self.count), "--device", self.device, "--dtype", self.dtype]
        if self.ahead:
            words.append("--ahead")
        if self.threads:
            words += ["--threads", str(self.threads)]
        return shlex.join([*words, "--output", str(self.output)])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
