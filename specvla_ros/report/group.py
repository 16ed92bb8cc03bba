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
    alike: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        alike.setdefault((run.suite, run.conditions["checkpoint"]), []).append(run)
    suites = [suite for suite, _ in alike]
    groups = []
    for (suite, _), group in alike.items():
        several = suites.count(suite) > 1
        title = f"{suite}, {group[0].checkpoint}" if several else suite
        name = f"{suite}_{group[0].checkpoint}" if several else suite
        groups.append(Group(title, name, group, [one for one in speeds.values() if belongs(one, group)]))
    return groups
