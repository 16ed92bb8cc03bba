"""What a draft's training writes down: two tables and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from specvla_ros.training.accept_length import AcceptLength
from specvla_ros.training.draft_loss import DraftLoss

LOSS_FILE = "log.csv"
VALIDATION_FILE = "validation.csv"
PLOT_FILE = "training.png"
LOSS_COLUMNS = ("step", "seconds", "learning_rate", "loss", "feature_loss", "logits_loss", "agreement")

Row = dict[str, float]


class DraftLog:
    """log.csv: losses; validation.csv: tokens per target forward on held-out frames; training.png: both.

    Args:
        directory: of the draft.
        step: where training goes on; what a stopped run wrote behind it is forgotten.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self._directory = directory
        self._losses = [row for row in _read(directory / LOSS_FILE) if row["step"] <= step]
        self._validation = [row for row in _read(directory / VALIDATION_FILE) if row["step"] <= step]

    def add_loss(self, step: int, seconds: float, learning_rate: float, loss: DraftLoss) -> None:
        """One line of log.csv."""
        parts = (loss.total, loss.features, loss.logits, loss.agreement)
        values = [step, seconds, learning_rate, *(part.item() for part in parts)]
        self._losses.append(dict(zip(LOSS_COLUMNS, values, strict=True)))

    def add_validation(self, step: int, rows: Sequence[AcceptLength]) -> None:
        """One line of validation.csv; writes all files."""
        lengths = {f"r{row.threshold}": row.tokens_per_forward for row in rows}
        self._validation.append({"step": step, **lengths})
        _write(self._directory / LOSS_FILE, self._losses)
        _write(self._directory / VALIDATION_FILE, self._validation)
        self._plot()

    def validated(self, step: int) -> bool:
        """Whether the accept length at a step is known."""
        return bool(self._validation) and self._validation[-1]["step"] == step

    def _plot(self) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for column in ("loss", "feature_loss", "logits_loss"):
            left.plot([row["step"] for row in self._losses], [row[column] for row in self._losses], label=column)
        left.set(xlabel="step", ylabel="loss", yscale="log")
        for column in list(self._validation[0])[1:]:
            points = [row[column] for row in self._validation]
            right.plot([row["step"] for row in self._validation], points, marker=".", label=column)
        right.set(xlabel="step", ylabel="tokens per target forward, held-out")
        for axes in (left, right):
            axes.grid(alpha=0.3)
            if axes.has_data():
                axes.legend()
        figure.savefig(self._directory / PLOT_FILE, dpi=120)


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {name: int(value) if name == "step" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def _write(path: Path, rows: Sequence[Row]) -> None:
    if not rows:
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
