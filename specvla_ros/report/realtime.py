"""Success when the scene does not wait: against a given latency, and against the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from specvla_ros.evaluation.intervals import holm, wilson_interval
from specvla_ros.evaluation.latency import parse_latency
from specvla_ros.evaluation.pairing import Pairing
from specvla_ros.evaluation.runs import CONDITIONS, Run
from specvla_ros.evaluation.tables import success_cells
from specvla_ros.policy import PLAIN
from specvla_ros.report.plots import Curve, Panel
from specvla_ros.report.result_tables import PAIRED, paired_cells
from specvla_ros.report.table import Table

GIVEN = "fixed:"
"""How the condition `latency` begins where it was given, and not the decoder's own nor a model of one."""
EMULATED = "emulated, "
SIGNIFICANCE = 0.05
"""Thresholds whose paired test has at least this p, corrected for all pairs of them, are not told apart."""


def latency_text(run: Run) -> str:
    """In words; a delay model is called emulated, since no machine was timed."""
    latency = parse_latency(run.latency)
    if latency.own:
        return "the decoder's own"
    if run.latency.startswith(GIVEN):
        return f"{latency.floor:g} ms"
    return f"{EMULATED}{latency.floor:g} ms + {latency.each_round:g} ms a round"


def latency_sources(runs: Sequence[Run]) -> list[str]:
    """Of each emulated delay where it is from, or that it was given."""
    sources: dict[str, set[str]] = {}
    for run in runs:
        if latency_text(run).startswith(EMULATED):
            told = {one.latency_source for one in run.sessions if one.latency_source}
            sources.setdefault(latency_text(run), set()).update(told)
    return [
        f"{delay.removeprefix(EMULATED)}: {'; '.join(sorted(told)) or 'as given'}." for delay, told in sources.items()
    ]


def hold_text(run: Run) -> str:
    """For how long its commands hold."""
    return f"{1000 * float(run.conditions['hold_time']):g} ms"


def mean_latency(run: Run) -> float:
    """Milliseconds of a command: as emulated, or the decoder's median."""
    total = run.total
    return parse_latency(run.latency).milliseconds(total.rounds_per_action, total.median_ms)


def realtime_table(name: str, runs: Sequence[Run], plain: Run | None) -> Table:
    """A row for each evaluation in real time, beside it plain greedy decoding in lockstep on its initial states."""
    headings = (
        *CONDITIONS,
        "latency",
        "holds for",
        "mean ms",
        "success %",
        "solved",
        "95 % interval",
        *PAIRED,
        "steps",
        "held %",
        "at rest %",
    )
    rows = []
    for run, paired in zip(runs, paired_cells(runs, plain), strict=True):
        total, details = run.total, run.details
        rows.append(
            [
                run.draft,
                run.threshold_text,
                latency_text(run),
                hold_text(run),
                f"{mean_latency(run):.0f}",
                f"{100 * run.success:.1f}",
                *success_cells(total),
                *paired,
                f"{total.steps:.1f}",
                f"{100 * details.held:.1f}",
                f"{100 * details.at_rest:.1f}",
            ]
        )
    return Table(f"{name}_realtime", headings, rows, text_columns=4)


def latency_panel(runs: Sequence[Run]) -> Panel:
    """Success against a given latency, a curve for each draft, threshold and time that commands hold.

    Lockstep is a latency of nothing.
    """
    curves = []
    given = [run for run in runs if run.latency.startswith(GIVEN)]
    for label, hold in dict.fromkeys((run.label, hold_text(run)) for run in given):
        alike = [run for run in given if (run.label, hold_text(run)) == (label, hold)]
        lockstep = [run for run in runs if run.label == label and not run.realtime]
        # Lockstep first: where a latency of 0 was given too, that is the point.
        points = {parse_latency(run.latency).floor: run for run in [*lockstep, *alike]}
        curves.append(success_curve(f"{label}, holds {hold}", list(points.items())))
    return Panel("success by latency", "latency of a command [ms]", curves, percent=True)


@dataclass(frozen=True, slots=True)
class ThresholdSweep:
    """Evaluations of one draft whose latency is the decoder's own or emulated, at several thresholds.

    Attributes:
        draft: its name.
        conditions: the latency, and how long a command holds.
        plain: greedy decoding without a draft under the same conditions, where it was evaluated.
    """

    draft: str
    conditions: str
    runs: Sequence[Run]
    plain: Run | None

    @property
    def label(self) -> str:
        """What its thresholds have in common."""
        return f"{self.draft}, {self.conditions}"

    @property
    def starts(self) -> set[tuple[int, int]]:
        """Task and initial state of the episodes that all its evaluations were tried on."""
        return set.intersection(*(set(run.outcomes) for run in self.runs))

    @property
    def solved(self) -> dict[Run, int]:
        """How many of these."""
        starts = self.starts
        return {run: sum(run.outcomes[start] for start in starts) for run in self.runs}

    def curve(self) -> Curve:
        """Success rates on these starts, with their intervals, over the threshold."""
        tried = len(self.starts)
        ordered = sorted(self.solved.items(), key=lambda pair: pair[0].thresholds)
        low, high = zip(*(wilson_interval(count, tried) for _, count in ordered), strict=True)
        x = [run.thresholds[0] for run, _ in ordered]
        return Curve(self.label, x, [count / tried for _, count in ordered], low, high)

    def best(self) -> str:
        """What solved most of the starts that all were tried on, how sure that is, what it cannot be told from."""
        starts, solved = self.starts, self.solved
        if not starts:
            return "Its thresholds have no start in common, so that they cannot be compared."
        best = max(self.runs, key=lambda run: solved[run])
        low, high = wilson_interval(solved[best], len(starts))
        alike = [run.threshold_text for run in self._alike(best)]
        same = all(run.outcomes.keys() == starts for run in self.runs)
        sentence = (
            f"Best threshold: {best.threshold_text}, with {100 * solved[best] / len(starts):.1f} % of {len(starts)} "
            f"{'episodes' if same else 'starts that all thresholds share'} solved (95 % interval {100 * low:.1f} to "
            f"{100 * high:.1f} %)."
        )
        if alike:
            sentence += (
                f" These episodes do not tell it from {', '.join(alike)} (exact McNemar tests, corrected by Holm for "
                "all pairs of thresholds, 5 % level)."
            )
        if self.plain and (tried := starts & self.plain.outcomes.keys()):
            greedy = sum(self.plain.outcomes[start] for start in tried)
            sentence += f" Plain greedy decoding solved {greedy} of {len(tried)}."
        return sentence

    def _alike(self, best: Run) -> list[Run]:
        """What the common starts do not tell from the best, which was not known to be the best before."""
        starts, pairs = self.starts, list(combinations(self.runs, 2))
        p = holm([Pairing.of(one.outcomes, other.outcomes, starts).p for one, other in pairs])
        undecided = [pair for pair, value in zip(pairs, p, strict=True) if best in pair and value >= SIGNIFICANCE]
        return [run for pair in undecided for run in pair if run is not best]


def threshold_sweeps(runs: Sequence[Run]) -> list[ThresholdSweep]:
    """Those of several thresholds."""
    sweeps: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.realtime and not run.latency.startswith(GIVEN) and run.threshold is not None:
            sweeps.setdefault((run.draft, f"{latency_text(run)}, holds {hold_text(run)}"), []).append(run)
    plain = {conditions: group[0] for (draft, conditions), group in sweeps.items() if draft == PLAIN}
    return [
        ThresholdSweep(draft, conditions, group, plain.get(conditions))
        for (draft, conditions), group in sweeps.items()
        if len(group) > 1
    ]


def threshold_panel(sweeps: Sequence[ThresholdSweep]) -> Panel:
    """Success against the threshold, a curve for each sweep; plain greedy decoding, which has none, is in the words."""
    curves = [one.curve() for one in sweeps if one.starts]
    return Panel("success by threshold in real time", "threshold [bins]", curves, percent=True)


def threshold_caption(sweeps: Sequence[ThresholdSweep]) -> str:
    """What its points have in common."""
    counts = "; ".join(f"{one.label}: {len(one.starts)}" for one in sweeps if one.starts)
    return (
        "For each delay and hold time at which a draft was tried with several thresholds, success on the starts that "
        f"all these share ({counts}). Bands and bars: 95 % intervals."
    )


def success_curve(label: str, points: Sequence[tuple[float, Run]], plain: Run | None = None) -> Curve:
    """Success rates with their intervals over x.

    Args:
        plain: stands beside each point on its own starts, where some points have fewer than it has.
    """
    ordered = sorted(points, key=lambda point: point[0])
    low, high = zip(*(run.total.interval for _, run in ordered), strict=True)
    paired = [pairing for _, run in ordered if plain and (pairing := run.paired_with(plain))]
    fewer = plain is not None and any(one.episodes < plain.total.episodes for one in paired)
    beside = [one.solved / one.episodes for one in paired] if fewer and len(paired) == len(ordered) else ()
    return Curve(label, [x for x, _ in ordered], [run.success for _, run in ordered], low, high, beside)
