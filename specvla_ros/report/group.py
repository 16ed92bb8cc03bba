"""The evaluations of one checkpoint on one suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specvla_ros.evaluation.runs import Run
from specvla_ros.policy import PLAIN
from specvla_ros.report.speed import SpeedUp, belongs, speed_ups


@dataclass(frozen=True, slots=True)
class Group:
    """What the report shows together.

    Attributes:
        title: of the sections; name: of their files.
        runs: at least one.
        speeds: `specvla eval --speed` on the same suite and weights.
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
    """In the order of the runs; the checkpoint is named where a suite was tried with several."""
    alike = _alike(runs)
    suites = [group[0].suite for group in alike]
    groups = []
    for group in alike:
        suite, checkpoint = group[0].suite, group[0].checkpoint
        several = suites.count(suite) > 1
        title = f"{suite}, {checkpoint}" if several else suite
        name = f"{suite}_{checkpoint}" if several else suite
        groups.append(Group(title, name, group, [one for one in speeds.values() if belongs(one, group)]))
    return groups


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Those of one suite and one checkpoint: in the same place, or with the same weights wherever they lay."""
    groups: list[list[Run]] = []
    for run in runs:
        ours = [group for group in groups if any(_same_checkpoint(run, one) for one in group)]
        groups = [group for group in groups if group not in ours]
        groups.append([*(one for group in ours for one in group), run])
    order = {run: number for number, run in enumerate(runs)}
    return sorted((sorted(group, key=order.__getitem__) for group in groups), key=lambda group: order[group[0]])


def _same_checkpoint(one: Run, other: Run) -> bool:
    return one.suite == other.suite and any(
        one.conditions[name] == other.conditions[name] for name in ("checkpoint", "fingerprint")
    )
