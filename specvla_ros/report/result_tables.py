"""The report's tables of lockstep evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specvla_ros.evaluation.intervals import holm
from specvla_ros.evaluation.pairing import Pairing
from specvla_ros.evaluation.runs import CONDITIONS, Run
from specvla_ros.evaluation.tables import success_cells, summarise
from specvla_ros.policy import ACTION_DIMENSIONS, ACTION_LENGTH
from specvla_ros.report.case_study import CaseStudy
from specvla_ros.report.numbers import ABSENT
from specvla_ros.report.published import AUTOREGRESSIVE, PublishedRow
from specvla_ros.report.speed import SpeedUp
from specvla_ros.report.table import Table

PHASES = ("prepare", "vision", "prefill", "draft", "verify", "total")

PAIRED = ("greedy, same starts", "lost / won", "p, Holm")
"""Headings of `paired_cells`."""


def main_table(
    name: str,
    runs: Sequence[Run],
    plain: Run | None,
    speed_ups: Mapping[Run, SpeedUp],
    published: Sequence[PublishedRow],
) -> Table:
    """A row for each evaluation, with plain greedy decoding on its initial states; below them what was published."""
    headings = (
        *CONDITIONS,
        "origin",
        "success %",
        "solved",
        "95 % interval",
        *PAIRED,
        "steps",
        "tokens per forward",
        "drafts per round",
        "forwards per action",
        "off by [bins]",
        "ms median",
        "ms p95",
        "speed-up",
    )
    paired = paired_cells(runs, plain)
    rows = [_main_row(run, cells, speed_ups.get(run)) for run, cells in zip(runs, paired, strict=True)]
    rows += [_published_row(row) for row in published]
    return Table(f"{name}_main", headings, rows, text_columns=3, foreign=len(published))


def paired_cells(runs: Sequence[Run], plain: Run | None) -> list[list[str]]:
    """For each evaluation of a table what plain greedy decoding in lockstep solved of its episodes, how many of them
    only it and only the evaluation solved, and how often chance alone makes such a difference: the more evaluations are
    compared, the more often in one of them.
    """
    pairings = {run: pairing for run in runs if plain and (pairing := run.paired_with(plain))}
    compared = {run: pairing for run, pairing in pairings.items() if run is not plain}
    p = dict(zip(compared, holm([pairing.p for pairing in compared.values()]), strict=True))
    return [_paired_row(pairings.get(run), p.get(run)) for run in runs]


def _paired_row(pairing: Pairing | None, p: float | None) -> list[str]:
    if pairing is None:
        return [ABSENT] * len(PAIRED)
    solved = f"{pairing.solved}/{pairing.episodes}"
    return [solved, ABSENT, ABSENT] if p is None else [solved, f"{pairing.lost} / {pairing.won}", f"{p:.2g}"]


def _main_row(run: Run, paired: Sequence[str], speed_up: SpeedUp | None) -> list[str]:
    total = run.total
    return [
        run.draft,
        run.threshold_text,
        "measured",
        f"{100 * run.success:.1f}",
        *success_cells(total),
        *paired,
        f"{total.steps:.1f}",
        f"{total.tokens_per_forward:.2f}",
        f"{total.drafts_per_round:.2f}",
        f"{total.forwards_per_action:.2f}",
        f"{total.deviation:.2f}",
        _optional(speed_up.median_ms if speed_up else None, "{:.1f}"),
        _optional(speed_up.p95_ms if speed_up else None, "{:.1f}"),
        _optional(speed_up.ratio if speed_up else None, "{:.2f}x"),
    ]


def _published_row(row: PublishedRow) -> list[str]:
    length = 1.0 if row.draft == AUTOREGRESSIVE else row.accept_length
    forwards = None if length is None else ACTION_LENGTH / length
    return [
        row.draft,
        str(row.threshold),
        f"{row.origin}, {row.machine}",
        _optional(row.success, "{:.1f}"),
        ABSENT,
        ABSENT,
        *[ABSENT] * len(PAIRED),
        ABSENT,
        _optional(length, "{:.2f}"),
        ABSENT,
        _optional(forwards, "({:.2f})"),
        ABSENT,
        _optional(row.milliseconds, "{:.1f}"),
        ABSENT,
        f"{row.speed_up:.2f}x",
    ]


def phase_table(name: str, runs: Sequence[Run]) -> Table:
    """Milliseconds of an action by phase."""
    rows = []
    for run in runs:
        times = run.details.milliseconds
        cells = ["{:.1f} / {:.1f}".format(*times[phase]) if phase in times else ABSENT for phase in PHASES]
        rows.append([run.draft, run.threshold_text, *cells])
    return Table(f"{name}_phases", (*CONDITIONS, *PHASES), rows, text_columns=2)


def deviation_table(name: str, runs: Sequence[Run]) -> Table:
    """Mean distance from the target's answer by dimension, in bins."""
    rows = [[run.draft, run.threshold_text, *(f"{value:.2f}" for value in run.details.deviations)] for run in runs]
    return Table(f"{name}_deviations", (*CONDITIONS, *ACTION_DIMENSIONS), rows, text_columns=2)


def task_table(name: str, runs: Sequence[Run]) -> Table:
    """A row for each task of each evaluation."""
    headings = (*CONDITIONS, "task", "instruction", "solved", "95 % interval", "steps", "tokens per forward")
    rows = []
    for run in runs:
        for summary in summarise(run.episodes):
            rows.append(
                [
                    run.draft,
                    run.threshold_text,
                    summary.task,
                    summary.language,
                    *success_cells(summary),
                    f"{summary.steps:.1f}",
                    f"{summary.tokens_per_forward:.2f}",
                ]
            )
    return Table(f"{name}_tasks", headings, rows, text_columns=4)


def case_table(study: CaseStudy) -> Table:
    """Each of the action's tokens beside the target's answer, in bins."""
    origins = ["prefill"]
    answers = [study.first]
    for number, one in enumerate(study.rounds, start=1):
        accepted = one.path[1:]
        origins += [f"draft, round {number}"] * len(accepted) + [f"target, round {number}"]
        answers += [*(one.answers[one.parents[node]] for node in accepted), one.answers[one.path[-1]]]
    rows = [
        [name, origin, str(token), str(answer), f"{token - answer:+d}" if token != answer else "0", str(limit)]
        for name, origin, token, answer, limit in zip(
            ACTION_DIMENSIONS, origins, study.committed, answers, study.thresholds, strict=True
        )
    ]
    return Table(
        "case_study", ("dimension", "from", "token", "target's answer", "off by", "allowed"), rows, text_columns=2
    )


def _optional(value: float | None, form: str) -> str:
    return ABSENT if value is None else form.format(value)
