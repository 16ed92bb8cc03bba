"""The record of a training: one CSV row a report, and a plot of it."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

CSV_FILE = "log.csv"
PLOT_FILE = "log.png"


class TrainingLog:
    """Rows of numbers under fixed columns; the first column is the step.

    Args:
        directory: holds log.csv and log.png.
        columns: names, `step` first.
        resumed_at: rows of later steps, which a run wrote before it was cut off, are dropped; 0 starts anew.
    """

    def __init__(self, directory: Path, columns: Sequence[str], resumed_at: int) -> None:
        self._directory = directory
        self._columns = list(columns)
        self._rows: list[dict[str, float]] = []
        path = directory / CSV_FILE
        if resumed_at and path.is_file():
            with path.open(newline="") as file:
                rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
            self._rows = [row for row in rows if row["step"] <= resumed_at]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; columns may be left out."""
        self._rows.append(dict(row))
        with (self._directory / CSV_FILE).open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def plot(self, panels: Mapping[str, Sequence[str]]) -> None:
        """Draw columns over the steps, one panel a title, into log.png."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0 * len(panels), 4.0), layout="constrained")
        for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for name in names:
                points = [(row["step"], row[name]) for row in self._rows if name in row]
                axes.plot([step for step, _ in points], [value for _, value in points], label=name.replace("_", " "))
            axes.set(title=title, xlabel="step")
            axes.legend(fontsize="small")
            axes.grid(alpha=0.3)
        unfinished = self._directory / f".{PLOT_FILE}"
        figure.savefig(unfinished, format="png", dpi=100)
        os.replace(unfinished, self._directory / PLOT_FILE)
