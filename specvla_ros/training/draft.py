"""Trains Spec-VLA's draft on what the target did: AdamW, linear warm-up and decay, clipped gradients."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from specvla_ros.errors import ConfigurationError, DataError
from specvla_ros.runtime import load_target, select_device, select_dtype
from specvla_ros.shipped import checkpoint_directory
from specvla_ros.speculative.eagle import EagleHead
from specvla_ros.training.accept_length import held_out_accept_lengths
from specvla_ros.training.draft_log import DraftLog
from specvla_ros.training.draft_loss import PREDICTED, DraftLoss, add_noise, draft_loss, embed_batch
from specvla_ros.training.held_signals import held_signals
from specvla_ros.training.regenerated import RegeneratedBatch, RegeneratedFrames, fingerprint
from specvla_ros.vla.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from specvla_ros.vla.config import ACTION_BINS, LlamaConfig
from specvla_ros.vla.model import OpenVLA

BETAS = (0.9, 0.95)
CLIP = 0.5
STATE_FILE = "state.pt"
LOG_EVERY = 50
FREE_TO_CHANGE = ("checkpoint", "output", "steps", "minutes", "validate_every", "device")
"""Options that a continued run may have different. Of the checkpoint the weights count, and not where they lie."""


@dataclass(frozen=True, slots=True)
class DraftOptions:
    """How to train a draft; the defaults are the published ones.

    Attributes:
        checkpoint: the target: directory or hub name.
        regenerated: folder that `regenerate` made with this target.
        output: becomes the draft's directory; one that is there already is trained further.
        steps: optimiser steps in all.
        minutes: ends training sooner; 0 is no limit. The learning rate's decay ends with whichever comes first.
        learning_rate: of AdamW after warm-up; a small target bears 1e-3.
        batch_size: steps of demonstrations in a forward.
        accumulation: forwards in an optimiser step.
        unroll: times the head reads its own prediction in training, see `draft_loss.unrolled_features`; 1 is none.
        logits_weight: of the logits' cross-entropy against the features' SmoothL1.
        action_head: logits over the 256 action tokens, as decoding uses them; else over the whole vocabulary.
        validate_every: optimiser steps between measurements of the accept length on held-out frames.
        validation_frames: at most so many.
        device: auto, cpu, cuda or cuda:N.
    """

    checkpoint: str
    regenerated: Path
    output: Path
    steps: int = 20_000
    minutes: float = 0.0
    learning_rate: float = 5e-5
    warmup_steps: int = 2000
    batch_size: int = 16
    accumulation: int = 1
    unroll: int = 1
    logits_weight: float = 0.1
    action_head: bool = True
    validate_every: int = 1000
    validation_frames: int = 200
    seed: int = 0
    device: str = "auto"


def train_draft(options: DraftOptions) -> Path:
    """Train, and keep the draft with the longest strict accept length on held-out frames.

    At SIGINT and SIGTERM the state is written first, and the signal then takes its usual course.

    Returns:
        The draft's directory, which `load_policy(draft=...)` takes; with log.csv, validation.csv and training.png.

    Raises:
        ConfigurationError: an option out of its range, or a directory that was trained with others.
        DataError: the regenerated data are incomplete or another target's.
    """
    _check(options)
    device = select_device(options.device)
    target = load_target(checkpoint_directory(options.checkpoint), select_dtype("auto", device), device)
    training, held_out = _load_data(options, target)
    options.output.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(options, target)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    with held_signals() as received, Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("draft", total=1.0, state="")
        groups = _groups(trainer.batches(training), options.accumulation)
        while not received and trainer.progress() < 1.0:
            loss = trainer.step(next(groups))
            if trainer.steps_done % LOG_EVERY == 0:
                trainer.log.add_loss(trainer.steps_done, trainer.elapsed(), trainer.learning_rate(), loss)
                state = f"step {trainer.steps_done}  loss {loss.total:.4f}  agreement {loss.agreement:.2f}"
                progress.update(bar, completed=trainer.progress(), state=state)
            if trainer.steps_done % options.validate_every == 0:
                trainer.validate_and_save(held_out)
        if received:
            trainer.save()
        elif not trainer.log.validated(trainer.steps_done):
            trainer.validate_and_save(held_out)
    return options.output


def _check(options: DraftOptions) -> None:
    """Refuse options out of their range."""
    for name in ("steps", "batch_size", "accumulation", "validate_every", "learning_rate"):
        if not 0 < getattr(options, name) < math.inf:
            raise ConfigurationError(f"{name} is {getattr(options, name)}; expected more than 0")
    if not 1 <= options.unroll <= PREDICTED:
        raise ConfigurationError(f"unroll is {options.unroll}; expected 1 to {PREDICTED}")
    if not 0 <= options.logits_weight < math.inf:
        raise ConfigurationError(f"logits_weight is {options.logits_weight}; expected at least 0")


def _load_data(options: DraftOptions, target: OpenVLA) -> tuple[RegeneratedFrames, RegeneratedFrames]:
    """The training and the held-out steps; refused if another target's."""
    training = RegeneratedFrames(options.regenerated, held_out=False)
    held_out = RegeneratedFrames(options.regenerated, held_out=True)
    if training.plan.target != fingerprint(target):
        raise DataError(
            f"{options.regenerated} was made by {training.plan.checkpoint} with other weights than "
            f"{options.checkpoint} has; regenerate with this target"
        )
    return training, held_out


class _Trainer:
    """The head with its optimiser, and where training stands."""

    def __init__(self, options: DraftOptions, target: OpenVLA) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.target = target
        self.steps_done = 0
        self._best = 0.0
        self._elapsed_before = 0.0
        self._started = time.monotonic()
        self._config = replace(target.config.llama, num_hidden_layers=1)
        self.head = EagleHead(self._config).to(target.device)
        self._optimizer = torch.optim.AdamW(self.head.parameters(), lr=options.learning_rate, betas=BETAS)
        first = target.config.first_action_id
        weight = target.language_model.lm_head.weight
        # A checkpoint that was trained further keeps its place, and wants another draft.
        self._fixed = {**_fixed(options), "target": fingerprint(target)}
        self._output_weight = (weight[first : first + ACTION_BINS] if options.action_head else weight).float()
        state_file = options.output / STATE_FILE
        if state_file.is_file():
            self._restore(torch.load(state_file, map_location=target.device, weights_only=True))
        self.log = DraftLog(options.output, self.steps_done)

    def elapsed(self) -> float:
        """Seconds of training, those of earlier runs included."""
        return self._elapsed_before + time.monotonic() - self._started

    def progress(self) -> float:
        """Share of the steps, or of the minutes if that is more."""
        by_time = self.elapsed() / (60.0 * self.options.minutes) if self.options.minutes else 0.0
        return min(max(self.steps_done / self.options.steps, by_time), 1.0)

    def learning_rate(self) -> float:
        """Linear warm-up, and a linear decay to nothing at the end."""
        warm = min((self.steps_done + 1) / max(self.options.warmup_steps, 1), 1.0)
        return self.options.learning_rate * min(warm, 1.0 - self.progress())

    def batches(self, frames: RegeneratedFrames) -> Iterator[RegeneratedBatch]:
        """Shuffled batches without an end, in the same order for the same seed, from where training stands."""
        on_gpu = self.target.device.type == "cuda"
        epoch_size = max(len(frames) // self.options.batch_size, 1)
        epoch, offset = divmod(self.steps_done * self.options.accumulation, epoch_size)
        while True:
            generator = torch.Generator().manual_seed(self.options.seed + epoch)
            order = torch.randperm(len(frames), generator=generator)[: epoch_size * self.options.batch_size].tolist()
            # Two workers read ahead for a GPU; on a CPU they would take the cores that train.
            yield from DataLoader(
                frames,
                batch_size=self.options.batch_size,
                sampler=order[offset * self.options.batch_size :],
                collate_fn=RegeneratedBatch.of,
                num_workers=2 if on_gpu else 0,
            )
            epoch, offset = epoch + 1, 0

    def step(self, batches: list[RegeneratedBatch]) -> DraftLoss:
        """One optimiser step; the last batch's loss."""
        device = self.target.device
        for batch in (batch.to(device) for batch in batches):
            embeddings = embed_batch(self.target.language_model.model.embed_tokens, batch)
            noisy = add_noise(batch.features.float(), batch.lengths)
            loss = draft_loss(
                self.head,
                self._output_weight,
                embeddings,
                noisy,
                batch,
                unroll=self.options.unroll,
                logits_weight=self.options.logits_weight,
            )
            (loss.total / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), CLIP)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.steps_done += 1
        return loss

    def validate_and_save(self, held_out: RegeneratedFrames) -> None:
        """Measure the accept length by real decoding; keep the head if it is the best, and the state anyhow."""
        rows = held_out_accept_lengths(self.target, self.head, held_out, self.options.validation_frames)
        self.log.add_validation(self.steps_done, rows)
        if rows[0].tokens_per_forward > self._best:
            self._best = rows[0].tokens_per_forward
            write_draft(self.options.output, self._config, self.head)
        self.save()

    def save(self) -> None:
        """Write what training goes on from."""
        state = {
            "options": self._fixed,
            "head": self.head.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps_done": self.steps_done,
            "elapsed": self.elapsed(),
            "best": self._best,
        }
        unfinished = self.options.output / f".{STATE_FILE}"
        torch.save(state, unfinished)
        unfinished.rename(self.options.output / STATE_FILE)

    def _restore(self, state: dict[str, Any]) -> None:
        before = state["options"]
        if changed := [name for name, value in self._fixed.items() if value != before.get(name)]:
            raise ConfigurationError(
                f"{self.options.output} was trained with another {', '.join(changed)}; give another output folder"
            )
        self.head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps_done, self._elapsed_before, self._best = state["steps_done"], state["elapsed"], state["best"]


def write_draft(directory: Path, config: LlamaConfig, head: EagleHead) -> None:
    """A draft's directory in the released layout and its float16; the target's embedding is not repeated."""
    # The released config.json says 32000 whatever the embedding has, and nothing reads it.
    fields = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **asdict(config), "vocab_size": 32000}
    weights = {name: value.half().cpu().contiguous() for name, value in head.state_dict().items()}
    unfinished = directory / f".{WEIGHTS_FILE}"
    save_file(weights, unfinished)
    (directory / CONFIG_FILE).write_text(json.dumps(fields, indent=1) + "\n")
    unfinished.rename(directory / WEIGHTS_FILE)


def _fixed(options: DraftOptions) -> dict[str, Any]:
    """Options that a continued run must share, as plain values."""
    return {name: str(value) for name, value in asdict(options).items() if name not in FREE_TO_CHANGE}


def _groups(batches: Iterator[RegeneratedBatch], size: int) -> Iterator[list[RegeneratedBatch]]:
    """Lists of `size` batches."""
    return iter(lambda: [next(batches) for _ in range(size)], [])
