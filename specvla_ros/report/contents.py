"""The sections about one checkpoint on one suite; each is empty where its data is absent."""

from __future__ import annotations

from functools import partial

from specvla_ros.policy import ACTION_DIMENSIONS, ACTION_LENGTH
from specvla_ros.report.group import Group
from specvla_ros.report.page import heading, paragraph
from specvla_ros.report.plots import draw_panels, draw_shares
from specvla_ros.report.published import published, source
from specvla_ros.report.realtime import (
    latency_panel,
    latency_sources,
    realtime_table,
    threshold_panel,
    threshold_sweeps,
)
from specvla_ros.report.result_tables import deviation_table, main_table, phase_table, task_table
from specvla_ros.report.sheet import Sheet
from specvla_ros.report.speed import speed_note, speed_table, timed_drafts
from specvla_ros.report.sweep import sweep_groups, sweep_panels

Html = list[str]


def results(group: Group, sheet: Sheet) -> Html:
    """The main table beside what was published, then what lies behind it."""
    if not group.lockstep:
        return []
    rows = published(group.lockstep[0].suite)
    parts = [sheet.table(main_table(group.name, group.lockstep, group.plain, group.speed_ups, rows))]
    note = (
        "Success with Wilson's 95 % interval. Rows can have different numbers of initial states: what plain greedy "
        "decoding solved of the very same ones stands beside. Lost: episodes that only plain greedy decoding solved; "
        "won: that only this row solved; p: how often chance alone makes as much of a difference (exact McNemar "
        "test, two-sided). Steps: mean of an episode, failed ones included. Tokens per forward is the paper's accept "
        "length: seven tokens over the target forwards of an action, the prefill included; rounds are the others. Off "
        "by: mean distance of a token from the target's own answer. Milliseconds: an action in the decoder, on "
        "the frames of the speed-up, where every row and plain greedy decoding take turns."
    )
    parts.append(paragraph(note, "note"))
    if rows:
        foreign = (
            f"In italics: another model, OpenVLA-7B, on another machine ({source(rows)}). Forwards in parentheses are "
            "seven over the published length. The published threshold relaxes the gripper too, ours keeps it exact."
        )
        parts.append(paragraph(foreign, "note"))
    for number, speed in enumerate(group.speeds, start=1):
        parts.append(heading(f"Speed-up: {timed_drafts(speed)}"))
        parts.append(sheet.table(speed_table(f"{group.name}_speed" + f"_{number}" * (number > 1), speed)))
        parts.append(paragraph(speed_note(speed), "note"))
    parts += [heading("By task"), sheet.long_table(task_table(group.name, group.lockstep), "Success by task")]
    parts += [heading("Milliseconds by phase, median / p95"), sheet.table(phase_table(group.name, group.lockstep))]
    if any(any(run.details.deviations) for run in group.drafted):
        parts += [heading("Distance from the target's answer, in bins")]
        parts += [sheet.table(deviation_table(group.name, group.drafted))]
    return parts


def sweep(group: Group, sheet: Sheet) -> Html:
    """Success, accept length and speed over the threshold."""
    groups = sweep_groups(group.lockstep)
    if not groups:
        return []
    panels = sweep_panels(groups, group.plain, group.speed_ups)
    caption = (
        "Bands: 95 % intervals. The threshold holds for the six motion dimensions; the gripper is exact. Points can "
        "have different numbers of initial states, which the table's plain greedy column makes up for."
    )
    return [sheet.drawing(f"{group.name}_sweep", partial(draw_panels, panels), caption)]


def acceptance(group: Group, sheet: Sheet) -> Html:
    """How many drafts a round accepts, and at which tokens."""
    if not group.drafted:
        return []
    counts = [str(count) for count in range(ACTION_LENGTH - 1)]
    rounds = [(run.label, run.details.rounds) for run in group.drafted]
    positions = [(run.label, run.details.positions) for run in group.drafted]
    return [
        sheet.drawing(
            f"{group.name}_rounds",
            partial(draw_shares, rounds, counts, "drafts accepted in a round"),
            "Share of verification rounds by how many drafts they accepted; each brings one token of the target's "
            "more.",
        ),
        sheet.drawing(
            f"{group.name}_positions",
            partial(draw_shares, positions, ACTION_DIMENSIONS, "token"),
            "Share of actions whose token there was an accepted draft. The first comes with the prefill; the last is "
            "always the target's own.",
        ),
    ]


def real_time(group: Group, sheet: Sheet) -> Html:
    """Success when the scene moves on: which threshold is best, and what latency costs."""
    if not group.realtime:
        return []
    sweeps = threshold_sweeps(group.realtime)
    parts = [paragraph(f"{one.label}. {one.best()}", "finding") for one in sweeps]
    bands = "Bands: 95 % intervals; points can have different numbers of initial states."
    panels = {
        "threshold": (
            threshold_panel(sweeps),
            f"A line for each delay and hold time at which a draft was tried with several thresholds. {bands}",
        ),
        "latency": (latency_panel(group.runs), f"{bands} At 0 ms the scene waits: lockstep."),
    }
    for name, (panel, caption) in panels.items():
        if panel.curves:
            drawing = partial(draw_panels, [panel])
            parts.append(sheet.drawing(f"{group.name}_realtime_{name}", drawing, caption))
    parts.append(sheet.table(realtime_table(group.name, group.realtime, group.plain)))
    note = (
        "Simulated real time: the scene goes on in steps of 50 ms while the policy thinks, a command is in force from "
        "the first step after its latency, and expires; how long it holds counts from its frame. Mean ms: latency of a "
        "command. Greedy, same starts: plain greedy decoding in lockstep. Held: steps with an old command. At "
        "rest: steps after the last one expired. Emulated: the latency is "
        "a stated delay model, not a measured time."
    )
    delays = " ".join(latency_sources(group.realtime))
    emulated = [paragraph(f"Where emulated delays are from. {delays}", "note")] if delays else []
    return [*parts, paragraph(note, "note"), *emulated]
