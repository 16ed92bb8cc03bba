"""What the evaluations were made on: a column for each machine, or set of versions, that added episodes."""

from __future__ import annotations

from collections.abc import Sequence

from specvla_ros.evaluation.runs import Run
from specvla_ros.machine import MADE
from specvla_ros.report.numbers import ABSENT
from specvla_ros.report.table import Table


def machine_table(runs: Sequence[Run]) -> Table:
    """A column for each; an evaluation that went on elsewhere counts in both."""
    made: dict[tuple[tuple[str, str], ...], list[str]] = {}
    evaluations: dict[tuple[tuple[str, str], ...], set[Run]] = {}
    for run in runs:
        for session in run.sessions:
            machine = tuple((what, which) for what, which in session.machine.items() if what != MADE)
            made.setdefault(machine, []).append(session.machine.get(MADE, ABSENT))
            evaluations.setdefault(machine, set()).add(run)
    names = dict.fromkeys(what for machine in made for what, _ in machine)
    rows = [
        ["evaluations", *(str(len(evaluations[machine])) for machine in made)],
        [MADE, *(_span(days) for days in made.values())],
        *([name, *(dict(machine).get(name, ABSENT) for machine in made)] for name in names),
    ]
    columns = [f"machine {number}" if len(made) > 1 else "which" for number in range(1, len(made) + 1)]
    return Table("machine", ("what", *columns), rows, text_columns=1 + len(columns))


def untold(runs: Sequence[Run]) -> int:
    """How many evaluations do not say what they were made on."""
    return sum(not run.sessions for run in runs)


def _span(days: Sequence[str]) -> str:
    first, last = min(days), max(days)
    return first if first == last else f"{first} to {last}"
