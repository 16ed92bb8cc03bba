"""An evaluation's figures by task: for the terminal, for a model card, for a program."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from specvla_ros.evaluation.intervals import wilson_interval
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.policy import ACTION_LENGTH

HEADINGS = ("task", "instruction", "solved", "95 % interval", "steps", "tokens per forward")
WORDS = ("instruction",)
TOTAL = "all"


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of some episodes.

    Attributes:
        task: index in the suite, or TOTAL.
        interval: Wilson's 95 % of the success rate.
        steps: mean of an episode, failed ones included; steps_median likewise.
        steps_solved: mean of the solved ones; None where there are none.
        tokens_per_forward: the Spec-VLA paper's accept length, over all actions of the episodes.
        drafts_per_round: draft tokens accepted in a verification round.
        forwards_per_action: target forwards, the prefill included.
        deviation: mean distance of a token from the target's argmax, in bins.
        median_ms, p95_ms: decode time of an action on the machine that ran it: the median over the episodes of an
            episode's median and of its 95th percentile.
    """

    task: str
    language: str
    solved: int
    episodes: int
    interval: tuple[float, float]
    steps: float
    steps_median: float
    steps_solved: float | None
    tokens_per_forward: float
    drafts_per_round: float
    forwards_per_action: float
    deviation: float
    median_ms: float
    p95_ms: float

    @property
    def rounds_per_action(self) -> float:
        """Target forwards after the prefill."""
        return self.forwards_per_action - 1.0

    @classmethod
    def of(cls, results: Sequence[EpisodeResult], task: str, language: str) -> Summary:
        """Pool episodes: each action counts once, however long its episode was."""
        steps = [result.steps for result in results]
        steps_solved = [result.steps for result in results if result.success]
        actions = np.array([result.actions for result in results])
        forwards = sum(result.forwards for result in results)
        median_ms, p95_ms = np.median([result.milliseconds["total"] for result in results], axis=0)
        return cls(
            task=task,
            language=language,
            solved=len(steps_solved),
            episodes=len(results),
            interval=wilson_interval(len(steps_solved), len(results)),
            steps=float(np.mean(steps)),
            steps_median=float(np.median(steps)),
            steps_solved=float(np.mean(steps_solved)) if steps_solved else None,
            tokens_per_forward=float(ACTION_LENGTH * actions.sum() / forwards),
            drafts_per_round=sum(r.accepted_drafts for r in results) / max(1, sum(r.rounds for r in results)),
            forwards_per_action=float(forwards / actions.sum()),
            deviation=float(np.average([np.mean(result.deviations) for result in results], weights=actions)),
            median_ms=float(median_ms),
            p95_ms=float(p95_ms),
        )


def summarise(results: Sequence[EpisodeResult]) -> list[Summary]:
    """One row a task, in the suite's order, and last the total."""
    languages = {result.task: result.language for result in results}
    rows = [
        Summary.of([result for result in results if result.task == task], str(task), languages[task])
        for task in sorted(languages)
    ]
    return [*rows, Summary.of(results, TOTAL, results[0].suite)]


def terminal_table(summaries: Sequence[Summary]) -> Table:
    """For the screen; the total under a line."""
    table = Table()
    for heading in HEADINGS:
        is_text = heading in WORDS
        table.add_column(heading, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for summary in summaries[:-1]:
        table.add_row(*_cells(summary))
    table.add_section()
    table.add_row(*_cells(summaries[-1]), style="bold")
    return table


def markdown_table(summaries: Sequence[Summary]) -> str:
    """For a model card; the total in bold."""
    rows = [_cells(summary) for summary in summaries]
    rows[-1] = [f"**{cell}**" for cell in rows[-1]]
    return markdown(HEADINGS, WORDS, rows)


def markdown(headings: Sequence[str], words: Collection[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rule = [":--" if heading in words else "--:" for heading in headings]
    return "".join(f"| {' | '.join(row)} |\n" for row in [headings, rule, *rows])


def summary_dict(summaries: Sequence[Summary]) -> dict[str, Any]:
    """For a program: `tasks`, a list, and `total`."""
    *tasks, total = (asdict(summary) for summary in summaries)
    return {"tasks": tasks, "total": total}


def write_summary(summaries: Sequence[Summary], folder: Path) -> None:
    """summary.json and summary.md."""
    write_tables(summary_dict(summaries), markdown_table(summaries), folder)


def write_tables(content: Any, text: str, folder: Path) -> None:
    """The same for programs and for people, beside the episodes."""
    (folder / "summary.json").write_text(json.dumps(content, indent=2) + "\n")
    (folder / "summary.md").write_text(text)


def success_cells(summary: Summary) -> list[str]:
    """Solved of tried, and the interval."""
    low, high = summary.interval
    return [f"{summary.solved}/{summary.episodes}", f"{100 * low:.1f} - {100 * high:.1f} %"]


def _cells(summary: Summary) -> list[str]:
    return [
        summary.task,
        summary.language,
        *success_cells(summary),
        f"{summary.steps:.1f}",
        f"{summary.tokens_per_forward:.2f}",
    ]
