"""From what was observed to the figures of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from specvla_ros.bench.entrants import IMPOSED, TRANSFORMERS, Entrant, Observed
from specvla_ros.bench.rates import Rates
from specvla_ros.bench.work import Work
from specvla_ros.evaluation.speedup import Speed, measure_speed
from specvla_ros.policy import ACTION_LENGTH, Action
from specvla_ros.sim.libero import RGB

PHASES = ("prepare", "vision", "prefill", "draft", "verify", "other")
"""In the order of an action; `other` is what lies between them."""
TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Milliseconds:
    """Of one phase over the actions of a row."""

    mean: float
    median: float
    p95: float
    p99: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Milliseconds:
        """Of at least one action."""
        median, p95, p99 = np.percentile(times, [50, 95, 99])
        return cls(float(np.mean(times)), float(median), float(p95), float(p99))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a row measured.

    Attributes:
        milliseconds: by PHASES and in TOTAL.
        forwards: of the target for an action, the prefill included; tokens_per_forward as Spec-VLA counts.
        ratio: the mean time of our plain greedy decoding over this row's on the same images, and its 95 % interval.
        same_actions: share of the actions whose seven tokens are those of our plain greedy decoding; None where
            lengths are imposed and tokens mean nothing.
        bins_off: mean distance of a token from plain greedy decoding's on the same image, likewise.
        moved: bytes of weights, keys and values for an action, and `floor_ms` what they take at the bandwidth measured.
        operations: of an action, and `arithmetic_ms` what they take at the rate measured.
        accepted: draft tokens accepted in each verification, by action.
    """

    milliseconds: dict[str, Milliseconds]
    actions_per_second: float
    forwards: float
    tokens_per_forward: float
    ratio: float
    interval: tuple[float, float]
    same_actions: float | None
    bins_off: float | None
    moved: float
    floor_ms: float
    operations: float
    arithmetic_ms: float
    accepted: list[tuple[int, ...]]

    @property
    def over_floor(self) -> float:
        """How many times as long as moving the bytes takes."""
        return self.milliseconds[TOTAL].mean / self.floor_ms


@dataclass(frozen=True, slots=True)
class Row:
    """A row with its figures; None where it is absent, and `note` says why or what fills it."""

    name: str
    kind: str
    draft: str
    threshold: int | None
    note: str
    figures: Figures | None

    def to_dict(self) -> dict[str, Any]:
        """For a program."""
        fields = asdict(self)
        figures = fields.pop("figures") or {}
        return {**fields, **figures, **({"over_floor": self.figures.over_floor} if self.figures else {})}


def measure(
    rows: Sequence[Entrant],
    images: Sequence[RGB],
    instruction: str,
    rates: Rates,
    *,
    ahead: bool,
    advance: Callable[[], None],
) -> list[Row]:
    """Decode every image with every entrant, in turn.

    Args:
        rows: plain greedy decoding first.
        ahead, advance: see `measure_speed`.
    """
    # By place: lengths of two files in folders of one name give rows of one name.
    running = {place: row.policy for place, row in enumerate(rows) if isinstance(row.policy, Observed)}
    measured = measure_speed(list(running.values()), images, instruction, ahead=ahead, advance=advance)
    speeds = dict(zip(running, measured, strict=True))
    return [
        Row(
            row.name,
            row.kind,
            row.draft,
            row.threshold,
            row.note,
            _figures(row, running[place], running[0], speeds[place], rates) if place in running else None,
        )
        for place, row in enumerate(rows)
    ]


def _figures(row: Entrant, seen: Observed, greedy: Observed, speed: Speed, rates: Rates) -> Figures:
    count = len(seen.actions)
    forwards = sum(action.stats.forwards for action in seen.actions)
    # transformers' language model is not ours to watch: it reads the same weights as often as plain greedy decoding.
    work = _mean(greedy.work if row.name == TRANSFORMERS else seen.work)
    tokens, expected = (np.array([action.tokens for action in one.actions]) for one in (seen, greedy))
    off = np.abs(tokens - expected)
    return Figures(
        milliseconds=_phases(seen.actions),
        actions_per_second=1e3 / speed.mean_ms,
        forwards=forwards / count,
        tokens_per_forward=ACTION_LENGTH * count / forwards,
        ratio=speed.speed_up,
        interval=speed.interval,
        same_actions=None if row.kind == IMPOSED else float((off.max(axis=1) == 0).mean()),
        bins_off=None if row.kind == IMPOSED else float(off.mean()),
        moved=work.bytes,
        floor_ms=1e3 * work.bytes / rates.bandwidth,
        operations=work.operations,
        arithmetic_ms=1e3 * work.operations / rates.arithmetic,
        accepted=[action.stats.accepted for action in seen.actions],
    )


def _phases(actions: Sequence[Action]) -> dict[str, Milliseconds]:
    times = [action.stats.milliseconds for action in actions]
    named = {name: [one.get(name, 0.0) for one in times] for name in PHASES}
    named["other"] = [one[TOTAL] - sum(one.get(name, 0.0) for name in PHASES) for one in times]
    named[TOTAL] = [one[TOTAL] for one in times]
    return {name: Milliseconds.of(values) for name, values in named.items()}


def _mean(work: Sequence[Work]) -> Work:
    return Work(sum(one.bytes for one in work) // len(work), sum(one.operations for one in work) // len(work))
