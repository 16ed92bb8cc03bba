"""Behaviour cloning of a small target from demonstrations."""

from __future__ import annotations

import copy
import math
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from specvla_ros.errors import ConfigurationError
from specvla_ros.runtime import load_target, select_device
from specvla_ros.training.augmentation import augment
from specvla_ros.training.batched import PromptTable
from specvla_ros.training.batches import Batch, BatchSource
from specvla_ros.training.frames import FrameStore, load_frames
from specvla_ros.training.held_signals import held_signals
from specvla_ros.training.learner import VALIDATION_COLUMNS, Learner, Losses, blur, move_average
from specvla_ros.training.optimiser import Optimiser, require_muon
from specvla_ros.training.small_target import write_target
from specvla_ros.training.target_options import TargetOptions
from specvla_ros.training.training_log import TrainingLog
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import PromptTokenizer, write_small_tokenizer

STATE_FILE = "state.pt"
CHECKPOINT = "checkpoint"
VALIDATION_FRAMES = 512
AVERAGE_DECAY = 0.999
COLUMNS = (
    "step",
    "samples",
    "seconds",
    "lr",
    "loss",
    "tokens",
    "pointing",
    "positions",
    "seen",
    "opening",
    *VALIDATION_COLUMNS,
)
PANELS = {
    "loss": ("tokens", "validation_loss", "pointing", "positions", "seen", "opening"),
    "validation: positions off by [cm]": ("validation_centimetres",),
    "validation: token accuracy": tuple(name for name in COLUMNS if name.startswith("accuracy")),
    "validation: deviation [bins]": tuple(name for name in COLUMNS if name.startswith("deviation")),
}


def train_target(options: TargetOptions) -> Path:
    """Train, or go on training, until the steps or the minutes are used up; the checkpoint's directory.

    At SIGINT and SIGTERM the state is written first, and the signal then takes its usual course.

    Raises:
        ConfigurationError: torch is too old, the device does not exist, or the output holds a run with other options.
        DataError: the demonstrations are missing or unusable.
    """
    require_muon()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    store = load_frames(options.data, options.cache or options.output / "frames", workers=options.workers)
    run = TargetRun(options, store)
    if not run.restore() and options.start is not None:
        run.start_from(options.start)
    with held_signals() as received, progress_bar() as bar:
        run.train(bar, received)
    return options.output / CHECKPOINT


class TargetRun:
    """One training: the model, its average, the optimiser and how far they are."""

    def __init__(self, options: TargetOptions, store: FrameStore) -> None:
        self._options = options
        self._device = select_device(options.device)
        self._config = options.sizes.config()
        self._norm_stats = store.norm_stats()
        tokens = store.tokens(self._config.vocabulary_size)
        self._batches = BatchSource(store, tokens, options.batch_size, options.seed)
        self._decisive = {**options.decisive(), "frames": len(store), "norm_stats": self._norm_stats}
        torch.manual_seed(options.seed)
        self._model = Learner(self._config, _prompts(store.instructions), _moves(self._norm_stats)).to(self._device)
        self._losses = torch.compile(self._model) if options.compile else self._model
        self._average = copy.deepcopy(self._model)
        self._optimiser = Optimiser(self._model)
        self._step = 0
        self._seconds = 0.0
        self._progress = 0.0

    def start_from(self, start: Path) -> None:
        """Begin with another run's averaged weights, or with a checkpoint's; either may have seen other data.

        A checkpoint has no landmark head, so that one begins from nothing.

        Raises:
            ConfigurationError: it is neither, or its sizes are others.
        """
        if (start / "config.json").is_file():
            self._start_from_checkpoint(start)
            return
        path = start / STATE_FILE
        if not path.is_file():
            raise ConfigurationError(
                f"{path} does not exist; start from the output folder of another training, or from a checkpoint"
            )
        state = torch.load(path, map_location=self._device, weights_only=True)
        self._require_sizes(path, state["decisive"]["sizes"], self._decisive["sizes"])
        for model in (self._model, self._average):
            model.load_state_dict(state["average"])

    def _start_from_checkpoint(self, directory: Path) -> None:
        target = load_target(directory, torch.float32, self._device)
        self._require_sizes(directory, _shapes(target), _shapes(self._model.target))
        for model in (self._model, self._average):
            model.target.load_state_dict(target.state_dict())

    def _require_sizes(self, path: Path, found: Any, wanted: Any) -> None:
        if found != wanted:
            raise ConfigurationError(f"{path} has the sizes {found}, not {wanted}; give the same")

    def restore(self) -> bool:
        """Go on from the output's state; False if it has none.

        Raises:
            ConfigurationError: it belongs to other options or other data.
        """
        path = self._options.output / STATE_FILE
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self._device, weights_only=True)
        for name, value in self._decisive.items():
            if (was := state["decisive"].get(name)) != value:
                shown = "" if name == "norm_stats" else f" was {was} and is now {value}"
                raise ConfigurationError(
                    f"{path} is of another training: {name}{shown or ' differs'}; give the same options to go on with "
                    "it, or another output"
                )
        self._model.load_state_dict(state["model"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._step, self._seconds = state["step"], state["seconds"]
        return True

    def train(self, bar: Progress, received: list[int]) -> None:
        """Train to the end, or until a signal was received; either way the state is written."""
        options = self._options
        log = TrainingLog(options.output, COLUMNS, self._step)
        task = bar.add_task("training", total=options.steps, completed=self._step, rate=0.0, loss=math.nan)
        before, first, begun = self._seconds, self._step, time.monotonic()
        self._update_progress()
        batches = self._batches.training(self._step)
        try:
            while self._progress < 1.0 and not received:
                losses = self._train_step(next(batches).to(self._device))
                self._seconds = before + time.monotonic() - begun
                self._update_progress()
                rate = (self._step - first) * options.batch_size / (self._seconds - before)
                total = math.ceil(self._step / self._progress)
                bar.update(task, total=total, completed=self._step, rate=rate, loss=losses.tokens.item())
                if self._progress >= 1.0 or (self._step % options.every == 0 and not received):
                    log.add({**self._row(losses), **self.validate()})
                    log.plot(PANELS)
                    self._write_checkpoint()
                    self._save()
        finally:
            batches.close()
        # A smaller time budget than before may have been used up already, after the last checkpoint.
        if self._progress >= 1.0 and self._step == first:
            self._write_checkpoint()
        self._save()

    def validate(self) -> dict[str, float]:
        """The averaged weights on held-out frames; nothing when no episode is held out."""
        rows = self._batches.validation(VALIDATION_FRAMES)
        with self._autocast():
            return self._average.validate(self._batches.gather(part) for part in rows)

    def learning_rate(self) -> float:
        """Rising over the warm-up, then along a cosine to 0 at the end of the steps or of the time."""
        warm = min(1.0, (self._step + 1) / self._options.warm_up) if self._options.warm_up else 1.0
        return self._options.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * min(self._progress, 1.0)))

    def _update_progress(self) -> None:
        share = self._step / self._options.steps
        if self._options.minutes is not None:
            share = max(share, self._seconds / (60.0 * self._options.minutes))
        self._progress = share

    def _train_step(self, batch: Batch) -> Losses:
        # One generator a step: a resumed run draws what an uninterrupted one would have drawn.
        generator = torch.Generator().manual_seed(self._options.seed * 1_000_003 + self._step)
        pixels, landmarks = augment(batch.images, batch.landmarks, generator, self._options.augmentation)
        read = blur(batch.tokens.cpu(), self._config.action_ids, generator)
        with self._autocast():
            losses: Losses = self._losses(pixels, landmarks, batch, read.to(self._device))
        losses.total.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step(self.learning_rate())
        self._step += 1
        # A young average would hold the random start for a thousand steps, so its memory grows with its age.
        move_average(self._average, self._model, min(AVERAGE_DECAY, self._step / (self._step + 10)))
        return losses

    def _row(self, losses: Losses) -> dict[str, float]:
        return {
            "step": self._step,
            "samples": self._step * self._options.batch_size,
            "seconds": round(self._seconds, 1),
            "lr": self.learning_rate(),
            "loss": losses.total.item(),
            "tokens": losses.tokens.item(),
            "pointing": losses.landmarks.pointing.item(),
            "positions": losses.landmarks.positions.item(),
            "seen": losses.landmarks.seen.item(),
            "opening": losses.landmarks.opening.item(),
        }

    def _write_checkpoint(self) -> None:
        state = self._average.target.state_dict()
        write_target(self._options.output / CHECKPOINT, self._config, state, self._norm_stats)

    def _save(self) -> None:
        path = self._options.output / STATE_FILE
        unfinished = path.with_name(f".{path.name}")
        state = {
            "decisive": self._decisive,
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "step": self._step,
            "seconds": self._seconds,
        }
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def _autocast(self) -> Any:
        dtype = self._options.dtype
        if dtype == "bfloat16" or (dtype == "auto" and self._device.type == "cuda"):
            return torch.autocast(self._device.type, torch.bfloat16)
        return nullcontext()


def progress_bar() -> Progress:
    """Steps, loss, samples a second and the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:.1f} samples/s"),
        TimeRemainingColumn(),
    )


def _shapes(target: OpenVLA) -> dict[str, int]:
    """What the options for sizes name, as a model has them."""
    config = target.config
    return {
        "vision_width": config.dinov2.width,
        "vision_depth": config.dinov2.depth,
        "hidden_size": config.llama.hidden_size,
        "layers": config.llama.num_hidden_layers,
        "siglip_width": config.siglip.width,
        "siglip_depth": config.siglip.depth,
    }


def _moves(norm_stats: dict[str, Any]) -> torch.Tensor:
    """(7,) True for the dimensions that the data moves by degrees."""
    (entry,) = norm_stats.values()
    action = entry["action"]
    low, high, mask = (torch.tensor(action[name]) for name in ("q01", "q99", "mask"))
    return mask & (high > low)


def _prompts(instructions: list[str]) -> PromptTable:
    """Their ids by the tokenizer that the checkpoint will carry."""
    with tempfile.TemporaryDirectory() as directory:
        write_small_tokenizer(Path(directory))
        tokenizer = PromptTokenizer(Path(directory))
        return PromptTable.from_ids([tokenizer.encode(instruction) for instruction in instructions])
