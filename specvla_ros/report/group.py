"""The evaluations that differ in draft, threshold and latency only: of one checkpoint on one suite."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specvla_ros.evaluation.runs import Run
from specvla_ros.policy import PLAIN
from specvla_ros.report.speed import SpeedUp, belongs, speed_ups

ROW = {"draft", "draft_settings", "threshold", "mode", "latency", "hold_time"}
"""Conditions that the rows of one table differ in."""
TARGET = {"checkpoint", "fingerprint"}
"""Conditions of which one is enough: the checkpoint in the same place, or the same weights wherever they lay."""


@dataclass(frozen=True, slots=True)
class Group:
    """What the report shows together.

    Attributes:
        title: of the sections; name: of their files.
        runs: at least one.
        speeds: `specvla eval --speed` of the same.
    """

    title: str
    name: str
    runs: Sequence[Run]
    speeds: Sequence[dict[str, Any]]

    @property
    def lockstep(self) -> list[Run]:
        """The scene waits for every command."""
        return [run for run in self.runs if not run.realtime]

    @property
    def drafted(self) -> list[Run]:
        """In lockstep with a draft."""
        return [run for run in self.lockstep if run.draft != PLAIN]

    @property
    def plain(self) -> Run | None:
        """In lockstep without."""
        return next((run for run in self.lockstep if run.draft == PLAIN), None)

    @property
    def realtime(self) -> list[Run]:
        """The scene moves on."""
        return [run for run in self.runs if run.realtime]

    @property
    def speed_ups(self) -> dict[Run, SpeedUp]:
        """Where they were measured."""
        return speed_ups(self.speeds, self.runs)


def grouped(runs: Sequence[Run], speeds: Mapping[Path, dict[str, Any]]) -> list[Group]:
    """In the order of the runs; what a suite was tried with several of is named."""
    alike = _alike(runs)
    groups = []
    for group in alike:
        words = _words(group[0], [one[0] for one in alike if one[0].suite == group[0].suite])
        name = re.sub("[ /]", "-", "_".join(words))
        groups.append(Group(", ".join(words), name, group, [one for one in speeds.values() if belongs(one, group)]))
    return groups


def _words(run: Run, beside: Sequence[Run]) -> list[str]:
    """The suite, and what distinguishes a run from others of it."""
    words, unnamed = [run.suite], ROW | TARGET
    if others := [one for one in beside if all(one.conditions[name] != run.conditions[name] for name in TARGET)]:
        words.append(_checkpoint(run, others))
        unnamed = unnamed | {"settings"}  # another checkpoint has others
    for name in run.conditions.keys() - unnamed:
        if len({one.conditions.get(name) for one in beside}) > 1:
            words.append(f"{name.replace('_', ' ')} {run.conditions[name]}")
    return [words[0], *sorted(words[1:])]


def _checkpoint(run: Run, others: Sequence[Run]) -> str:
    """Its name; where another has the same one, with as many of its folders as distinguish it."""
    if all(one.checkpoint != run.checkpoint for one in others):
        return run.checkpoint
    parts = Path(run.conditions["checkpoint"]).parts
    taken = [Path(one.conditions["checkpoint"]).parts for one in others]
    length = 1
    while any(one[-length:] == parts[-length:] for one in taken):
        length += 1
    return "/".join(parts[-length:])


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Those that `_belong_together`, directly or by way of another."""
    groups: list[list[Run]] = []
    for run in runs:
        ours = [group for group in groups if any(_belong_together(run, one) for one in group)]
        groups = [group for group in groups if group not in ours]
        groups.append([*(one for group in ours for one in group), run])
    order = {run: number for number, run in enumerate(runs)}
    return sorted((sorted(group, key=order.__getitem__) for group in groups), key=lambda group: order[group[0]])


def _belong_together(one: Run, other: Run) -> bool:
    differ = {name for name, value in one.conditions.items() if other.conditions.get(name, value) != value}
    return differ <= ROW | TARGET and not differ >= TARGET
