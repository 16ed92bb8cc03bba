"""The sections about one checkpoint on one suite; each is empty where its data is absent."""

from __future__ import annotations

from functools import partial

from specvla_ros.policy import ACTION_DIMENSIONS, ACTION_LENGTH
from specvla_ros.report import notes
from specvla_ros.report.group import Group
from specvla_ros.report.page import heading, paragraph
from specvla_ros.report.plots import draw_panels, draw_shares
from specvla_ros.report.published import published, source
from specvla_ros.report.realtime import (
    latency_panel,
    latency_sources,
    realtime_table,
    threshold_caption,
    threshold_panel,
    threshold_sweeps,
)
from specvla_ros.report.result_tables import deviation_table, main_table, phase_table, task_table
from specvla_ros.report.sheet import Sheet
from specvla_ros.report.speed import speed_note, speed_table, timed_drafts
from specvla_ros.report.sweep import hardly_relaxed, sweep_groups, sweep_panels

Html = list[str]


def results(group: Group, sheet: Sheet) -> Html:
    """The main table beside what was published, then what lies behind it."""
    if not group.lockstep:
        return []
    rows = published(group.lockstep[0].suite)
    parts = [sheet.table(main_table(group.name, group.lockstep, group.plain, group.speed_ups, rows))]
    parts.append(paragraph(f"{notes.RESULTS} {notes.SEEDING}", "note"))
    parts += [paragraph(sentence, "finding") for sentence in hardly_relaxed(group.lockstep)]
    if rows:
        parts.append(paragraph(notes.PUBLISHED.format(source=source(rows)), "note"))
    for number, speed in enumerate(group.speeds, start=1):
        parts.append(heading(f"Speed-up: {timed_drafts(speed)}"))
        parts.append(sheet.table(speed_table(f"{group.name}_speed" + f"_{number}" * (number > 1), speed)))
        parts.append(paragraph(speed_note(speed), "note"))
    parts += [heading("By task"), sheet.long_table(task_table(group.name, group.lockstep), "Success by task")]
    parts += [heading("Milliseconds by phase, median / p95"), sheet.table(phase_table(group.name, group.lockstep))]
    parts.append(paragraph(notes.PHASES, "note"))
    if any(any(run.details.deviations) for run in group.drafted):
        parts += [heading("Distance from the target's answer, in bins")]
        parts += [sheet.table(deviation_table(group.name, group.drafted)), paragraph(notes.DISTANCES, "note")]
    return parts


def sweep(group: Group, sheet: Sheet) -> Html:
    """Success, accept length and speed over the threshold."""
    groups = sweep_groups(group.lockstep)
    if not groups:
        return []
    panels = sweep_panels(groups, group.plain, group.speed_ups)
    return [sheet.drawing(f"{group.name}_sweep", partial(draw_panels, panels), notes.SWEEP)]


def acceptance(group: Group, sheet: Sheet) -> Html:
    """How many drafts a round accepts, and at which tokens."""
    if not group.drafted:
        return []
    counts = [str(count) for count in range(ACTION_LENGTH - 1)]
    rounds = [(run.label, run.details.rounds) for run in group.drafted]
    # Neither the first nor the last token can be an accepted draft.
    positions = [(run.label, (None, *run.details.positions[1:-1], None)) for run in group.drafted]
    drawn_rounds = partial(draw_shares, rounds, counts, "drafts accepted in a round")
    drawn_positions = partial(draw_shares, positions, ACTION_DIMENSIONS, "token")
    return [
        sheet.drawing(f"{group.name}_rounds", drawn_rounds, notes.ROUNDS),
        sheet.drawing(f"{group.name}_positions", drawn_positions, notes.POSITIONS),
    ]


def real_time(group: Group, sheet: Sheet) -> Html:
    """Success when the scene moves on: which threshold is best, and what latency costs."""
    if not group.realtime:
        return []
    sweeps = threshold_sweeps(group.realtime)
    parts = [paragraph(f"{one.label}. {one.best()}", "finding") for one in sweeps]
    panels = {
        "threshold": (threshold_panel(sweeps), threshold_caption(sweeps)),
        "latency": (latency_panel(group.runs), notes.LATENCIES),
    }
    for name, (panel, caption) in panels.items():
        if panel.curves:
            drawing = partial(draw_panels, [panel])
            parts.append(sheet.drawing(f"{group.name}_realtime_{name}", drawing, caption))
    parts.append(sheet.table(realtime_table(group.name, group.realtime, group.plain)))
    delays = " ".join(latency_sources(group.realtime))
    emulated = [paragraph(f"Where emulated delays are from. {delays}", "note")] if delays else []
    return [*parts, paragraph(notes.REAL_TIME, "note"), paragraph(notes.HELD, "note"), *emulated]
