"""What a draft's training writes down: two tables and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from specvla_ros.training.accept_length import VALIDATION_THRESHOLDS, AcceptLength
from specvla_ros.training.draft_loss import DraftLoss
from specvla_ros.training.training_log import LogPanel, TrainingLog, plot_logs

VALIDATION_FILE = "validation.csv"
PLOT_FILE = "training.png"
LOSS_COLUMNS = ("step", "seconds", "learning_rate", "loss", "feature_loss", "logits_loss", "agreement")
LENGTH_COLUMNS = tuple(f"r{threshold}" for threshold in VALIDATION_THRESHOLDS)


class DraftLog:
    """log.csv: losses; validation.csv: tokens per target forward on held-out frames; training.png: both.

    Args:
        directory: of the draft.
        step: where training goes on; what a stopped run wrote behind it is forgotten.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self._plot_file = directory / PLOT_FILE
        self._losses = TrainingLog(directory, LOSS_COLUMNS, step)
        self._validation = TrainingLog(directory, ("step", *LENGTH_COLUMNS), step, VALIDATION_FILE)

    def add_loss(self, step: int, seconds: float, learning_rate: float, loss: DraftLoss) -> None:
        """One line of log.csv."""
        parts = (loss.total, loss.features, loss.logits, loss.agreement)
        values = [step, seconds, learning_rate, *(part.item() for part in parts)]
        self._losses.add(dict(zip(LOSS_COLUMNS, values, strict=True)))

    def add_validation(self, step: int, rows: Sequence[AcceptLength]) -> None:
        """One line of validation.csv; draws the picture."""
        self._validation.add({"step": step, **{f"r{row.threshold}": row.tokens_per_forward for row in rows}})
        panels = [
            LogPanel("loss", self._losses, ("loss", "feature_loss", "logits_loss"), logarithmic=True),
            LogPanel("tokens per target forward, held-out", self._validation, LENGTH_COLUMNS),
        ]
        plot_logs(self._plot_file, panels)

    def validated(self, step: int) -> bool:
        """Whether the accept length at a step is known."""
        return bool(self._validation.rows) and self._validation.rows[-1]["step"] == step
