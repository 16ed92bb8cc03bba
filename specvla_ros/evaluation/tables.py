"""An evaluation's figures by task: for the terminal, for a model card, for a program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from specvla_ros.evaluation.intervals import wilson_interval
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.policy import ACTION_LENGTH

HEADINGS = ("task", "instruction", "solved", "95 % interval", "steps", "tokens per forward")
TOTAL = "all"


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of some episodes.

    Attributes:
        task: index in the suite, or TOTAL.
        interval: Wilson's 95 % of the success rate.
        steps: mean of an episode, failed ones included.
        tokens_per_forward: the Spec-VLA paper's accept length, over all actions of the episodes.
        drafts_per_round: draft tokens accepted in a verification round.
        deviation: mean distance of a token from the target's argmax, in bins.
        action_ms: median over the episodes of an episode's median decode time, on the machine that ran it.
    """

    task: str
    language: str
    solved: int
    episodes: int
    interval: tuple[float, float]
    steps: float
    tokens_per_forward: float
    drafts_per_round: float
    deviation: float
    action_ms: float

    @classmethod
    def of(cls, results: Sequence[EpisodeResult], task: str, language: str) -> Summary:
        """Pool episodes: each action counts once, however long its episode was."""
        steps = np.array([result.steps for result in results])
        solved = sum(result.success for result in results)
        return cls(
            task=task,
            language=language,
            solved=solved,
            episodes=len(results),
            interval=wilson_interval(solved, len(results)),
            steps=float(steps.mean()),
            tokens_per_forward=float(ACTION_LENGTH * steps.sum() / sum(result.forwards for result in results)),
            drafts_per_round=sum(r.accepted_drafts for r in results) / max(1, sum(r.rounds for r in results)),
            deviation=float(np.average([result.deviation for result in results], weights=steps)),
            action_ms=float(np.median([result.median_ms for result in results])),
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
        is_text = heading == "instruction"
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
    rule = [":--" if heading == "instruction" else "--:" for heading in HEADINGS]
    return "".join(f"| {' | '.join(row)} |\n" for row in [list(HEADINGS), rule, *rows])


def summary_dict(summaries: Sequence[Summary]) -> dict[str, Any]:
    """For a program: `tasks`, a list, and `total`."""
    *tasks, total = (asdict(summary) for summary in summaries)
    return {"tasks": tasks, "total": total}


def write_summary(summaries: Sequence[Summary], folder: Path) -> None:
    """summary.json and summary.md."""
    (folder / "summary.json").write_text(json.dumps(summary_dict(summaries), indent=2) + "\n")
    (folder / "summary.md").write_text(markdown_table(summaries))


def _cells(summary: Summary) -> list[str]:
    low, high = summary.interval
    return [
        summary.task,
        summary.language,
        f"{summary.solved}/{summary.episodes}",
        f"{100 * low:.1f} - {100 * high:.1f} %",
        f"{summary.steps:.1f}",
        f"{summary.tokens_per_forward:.2f}",
    ]
