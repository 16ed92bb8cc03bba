"""The record of a training: CSV files with one row a report, and a plot of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specvla_ros.plotting import require_matplotlib

CSV_FILE = "log.csv"
PLOT_FILE = "log.png"
FEW = 50
"""Points of a curve that are marked one by one."""


class TrainingLog:
    """Rows of numbers under fixed columns; the first column is the step.

    Args:
        directory: holds the file, and log.png.
        columns: names, `step` first.
        resumed_at: rows of later steps, which a run wrote before it was cut off, are dropped; 0 starts anew.
        file: name of the CSV file.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """

    def __init__(self, directory: Path, columns: Sequence[str], resumed_at: int, file: str = CSV_FILE) -> None:
        require_matplotlib("the curve of a training")
        self._path = directory / file
        self._columns = list(columns)
        self.rows: list[dict[str, float]] = []
        if resumed_at and self._path.is_file():
            with self._path.open(newline="") as lines:
                rows = [{name: _number(text) for name, text in row.items() if text} for row in csv.DictReader(lines)]
            self.rows = [row for row in rows if row["step"] <= resumed_at]
        with self._path.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; columns may be left out."""
        self.rows.append(dict(row))
        with self._path.open("a", newline="") as lines:
            csv.DictWriter(lines, self._columns).writerow(row)

    def plot(self, panels: Mapping[str, Sequence[str]]) -> None:
        """Draw columns over the steps, one panel a title, into log.png."""
        plot_logs(self._path.with_name(PLOT_FILE), [LogPanel(title, self, names) for title, names in panels.items()])


@dataclass(frozen=True, slots=True)
class LogPanel:
    """Columns of one log, drawn over the steps."""

    title: str
    log: TrainingLog
    columns: Sequence[str]
    logarithmic: bool = False


def plot_logs(path: Path, panels: Sequence[LogPanel]) -> None:
    """Draw the panels side by side into a PNG, which is replaced whole."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(panels), 4.0), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in panel.columns:
            points = [(row["step"], row[name]) for row in panel.log.rows if name in row]
            marker = "." if len(points) <= FEW else None
            label = name.replace("_", " ")
            axes.plot([step for step, _ in points], [value for _, value in points], marker=marker, label=label)
        axes.set(title=panel.title, xlabel="step", yscale="log" if panel.logarithmic else "linear")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    unfinished = path.with_name(f".{path.name}")
    figure.savefig(unfinished, format="png", dpi=100)
    os.replace(unfinished, path)


def _number(text: str) -> float:
    """A whole number stays one, so that it is written as it was read."""
    return int(text) if text.isdigit() else float(text)
