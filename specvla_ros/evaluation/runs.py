"""The evaluations below a folder: one, or those of a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.details import Details
from specvla_ros.evaluation.draft_names import draft_names
from specvla_ros.evaluation.episode_file import EPISODES, OPTIONS, read_results
from specvla_ros.evaluation.history import Session, read_sessions
from specvla_ros.evaluation.latency import LOCKSTEP, parse_latency
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.pairing import Pairing
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.evaluation.tables import TOTAL, Summary
from specvla_ros.evaluation.threshold import threshold_text
from specvla_ros.policy import PLAIN, Thresholds, expand_thresholds
from specvla_ros.shipped import hub_name

CONDITIONS = ("draft", "threshold")
"""What the evaluations of a table differ in first."""
SCENE = ("suite", "max_steps", "fast_rendering", "image_size", "seed")
"""The conditions that make an episode what it is, whatever the policy does."""
NEEDED = (*CONDITIONS, *SCENE, "latency", "hold_time", "checkpoint", "fingerprint", "dtype", "weights")
"""The conditions without which an evaluation cannot be told from others."""
SHORT_REVISION = 7
"""Letters of a commit's hash in a title."""
PLAIN_LABEL = "plain greedy"
"""Decoding without a draft."""


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluation: its conditions and its finished episodes, at least one.

    Attributes:
        draft: its name among the evaluations that were read with it, see `draft_names`.
    """

    folder: Path
    conditions: Mapping[str, Any]
    episodes: tuple[EpisodeResult, ...]
    draft: str = ""

    @cached_property
    def total(self) -> Summary:
        """Of all the episodes."""
        return Summary.of(self.episodes, TOTAL, self.suite)

    @cached_property
    def details(self) -> Details:
        """Of all the episodes."""
        return Details.of(self.episodes)

    @cached_property
    def outcomes(self) -> dict[tuple[int, int], bool]:
        """Whether it was solved, by task and initial state."""
        return {(one.task, one.episode): one.success for one in self.episodes}

    @cached_property
    def sessions(self) -> list[Session]:
        """When and on what the episodes were made, where that is told; not the starts that added none."""
        told = read_sessions(self.folder)
        ends = [*(one.finished for one in told[1:]), len(self.episodes)]
        return [one for one, end in zip(told, ends, strict=False) if one.finished < end]

    @property
    def options(self) -> EvaluationOptions:
        """What makes this evaluation, or goes on with it."""
        known = {field.name for field in fields(EvaluationOptions)} & set(self.conditions)
        values = {name: self.conditions[name] for name in known}
        if not isinstance(values["threshold"], int):
            values["threshold"] = tuple(values["threshold"])
        tasks = tuple(sorted({one.task for one in self.episodes}))
        trials = 1 + max(one.episode for one in self.episodes)
        return EvaluationOptions(output=self.folder, tasks=tasks, trials=trials, **values)

    @property
    def success(self) -> float:
        """Rate, 0 to 1."""
        return self.total.solved / self.total.episodes

    @property
    def suite(self) -> str:
        """Of LIBERO."""
        return str(self.conditions["suite"])

    @property
    def thresholds(self) -> Thresholds:
        """Bins, by dimension."""
        return expand_thresholds(self.conditions["threshold"])

    @property
    def threshold(self) -> int | None:
        """Of the six motion dimensions, the gripper exact; None where each has its own."""
        first = self.thresholds[0]
        return first if self.thresholds == expand_thresholds(first) else None

    @property
    def threshold_text(self) -> str:
        """One number, or seven joined by commas."""
        return threshold_text(self.conditions["threshold"])

    @property
    def label(self) -> str:
        """Short, unique among the evaluations of one suite and mode."""
        return PLAIN_LABEL if self.draft == PLAIN else f"{self.draft}, r = {self.threshold_text}"

    @property
    def latency(self) -> str:
        """Of a command, see `parse_latency`."""
        return str(self.conditions["latency"])

    @property
    def realtime(self) -> bool:
        """Whether the scene moved on while the policy thought."""
        return self.latency != LOCKSTEP

    def paired_with(self, other: Run) -> Pairing | None:
        """Beside another evaluation that played all of this one's episodes; None where it lacks some, or where its
        scenes were others.
        """
        starts = self.outcomes.keys()
        if starts - other.outcomes.keys() or any(self.conditions[name] != other.conditions[name] for name in SCENE):
            return None
        return Pairing.of(self.outcomes, other.outcomes, starts)

    @property
    def checkpoint(self) -> str:
        """The target's name."""
        directory = Path(self.conditions["checkpoint"])
        name, _, revision = hub_name(directory).partition("@")
        return f"{name}@{revision[:SHORT_REVISION]}" if name else directory.name


def read_runs(folder: Path) -> list[Run]:
    """The evaluation in the folder, or those in its sub-folders, plain greedy decoding first.

    Raises:
        ConfigurationError: there are none, or what is there cannot be read.
    """
    runs = find_runs(folder)
    if not runs:
        raise ConfigurationError(
            f"{folder} holds no finished episode; expected {OPTIONS} and {EPISODES} in it or in its sub-folders, as "
            "specvla eval --output writes them"
        )
    return runs


def find_runs(folder: Path) -> list[Run]:
    """The same, if there are any.

    Raises:
        ConfigurationError: what is there cannot be read.
    """
    folders = [path.parent for path in (folder / OPTIONS, *sorted(folder.glob(f"*/{OPTIONS}"))) if path.is_file()]
    runs = [run for run in map(_read, folders) if run.episodes]
    names = draft_names([run.conditions for run in runs])
    return sorted((replace(run, draft=name) for run, name in zip(runs, names, strict=True)), key=_order)


def _order(run: Run) -> tuple[Any, ...]:
    latency = parse_latency(run.latency)
    return (
        run.suite,
        run.checkpoint,
        run.draft != PLAIN,
        run.draft,
        run.threshold is None,
        sum(run.thresholds),
        run.thresholds,
        run.realtime,
        latency.own,
        latency.each_round > 0,
        latency.floor,
        latency.each_round,
        run.conditions["hold_time"],
    )


def _read(folder: Path) -> Run:
    path = folder / OPTIONS
    try:
        conditions = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); delete the folder to leave it out") from error
    episodes = tuple(read_results(folder / EPISODES))
    if episodes and (absent := [name for name in NEEDED if name not in conditions]):
        raise ConfigurationError(f"{path} does not say {', '.join(absent)}; delete the folder to leave it out")
    return Run(folder, conditions, episodes)
