"""What `specvla eval` shows and writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from specvla_ros.evaluation.comparison import (
    ConditionRow,
    comparison_dict,
    comparison_table,
    other_rows,
    write_comparison,
)
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.evaluation.speed_run import run_speeds, speed_table
from specvla_ros.evaluation.sweep import run_sweep
from specvla_ros.evaluation.tables import summary_dict, terminal_table


def run_command(
    sweep: Sequence[EvaluationOptions], speed_frames: int, output: Path, console: Console, rig: Rig | None = None
) -> dict[str, Any]:
    """Run all evaluations, show and write their tables, then time them if `speed_frames` is not 0.

    What is written of a sweep has the rows of other sweeps in the same folder too, also of one that runs meanwhile.

    Returns:
        `tasks` and `total` of a single evaluation, `conditions` of several; `speed`, a list by suite, where it was
        measured.
    """
    rig = rig or Rig()
    figures: dict[str, Any] = {}
    rows: list[ConditionRow] = []
    is_sweep = len(sweep) > 1 or sweep[0].output != output
    if is_sweep:
        other_rows(output, sweep)  # what cannot be read is told before anything is played
    for options, summaries in run_sweep(sweep, console, rig):
        rows.append(ConditionRow(options, summaries[-1]))
        if not is_sweep:
            figures = summary_dict(summaries)
            console.print(terminal_table(summaries))
        else:
            figures = comparison_dict(rows)
            write_comparison([*other_rows(output, sweep), *rows], output)
    if is_sweep:
        console.print(comparison_table(rows))
    console.print(f"episodes, summary.json and summary.md: {output}", highlight=False, soft_wrap=True)
    if speed_frames:
        speeds = run_speeds(sweep, speed_frames, output, rig)
        figures["speed"] = list(speeds.values())
        for path, report in speeds.items():
            console.print(speed_table(report))
            console.print(f"speed-up: {path}", highlight=False, soft_wrap=True)
    return figures
