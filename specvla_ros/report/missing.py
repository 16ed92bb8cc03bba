"""What a report could show and does not, with the command that would make it."""

from __future__ import annotations

import shlex
from pathlib import Path

from specvla_ros.report.case_study import read_case_study
from specvla_ros.report.commands import base_words, film_command, scene_words, short_path
from specvla_ros.report.films import choose_films, unfilmed_failures
from specvla_ros.report.group import Group
from specvla_ros.report.realtime import latency_panel, threshold_sweeps
from specvla_ros.report.sweep import sweep_groups

SWEEP = ["--threshold", "0", "--threshold", "3", "--threshold", "6", "--threshold", "9"]
LATENCIES = [
    "--latency",
    "fixed:0",
    "--latency",
    "fixed:100",
    "--latency",
    "fixed:200",
    "--latency",
    "fixed:500",
    "--hold-time",
    "1",
]
"""A command that comes after 500 ms must hold for longer."""
FRAMES = 200
FILMS = 3


def missing(group: Group, folder: Path) -> dict[str, str]:
    """Command by what it makes."""
    run = group.drafted[-1] if group.drafted else group.runs[0]
    draft = ["--draft", str(run.conditions["draft"]) if group.drafted else "hold"]
    options = run.options
    seed = ["--seed", str(options.seed)] if options.seed else []
    common = [*base_words(options, [run.suite]), *scene_words(options), *seed]
    lacking = {
        "success in lockstep": (not group.lockstep, draft),
        "threshold sweep": (not sweep_groups(group.lockstep), [*draft, *SWEEP]),
        "speed-up": (not group.speeds, [*draft, *SWEEP, "--speed", str(FRAMES)]),
        "best threshold in real time": (
            not threshold_sweeps(group.realtime),
            [*draft, *SWEEP, "--latency", "measured"],
        ),
        "success by latency": (not latency_panel(group.runs).curves, [*draft, *LATENCIES]),
        "films": (not choose_films(group.runs), [*draft, "--videos", str(FILMS)]),
    }
    made = {
        what: shlex.join([*common, *words, "--output", short_path(folder)])
        for what, (absent, words) in lacking.items()
        if absent
    }
    if choose_films(group.runs):
        for run_failed, episodes in unfilmed_failures(group.runs).items():
            # Beside the folder, where it is not taken for one of the report's evaluations.
            output = folder.resolve().with_name(f"{folder.resolve().name}_films") / run_failed.folder.name
            tasks = ", ".join(str(one.task) for one in episodes)
            made[f"film of a failure, task {tasks} ({run_failed.label})"] = film_command(run_failed, episodes, output)
    if group.drafted and read_case_study(folder) is None:
        name = run.folder.relative_to(folder).as_posix()
        made["case study"] = shlex.join(["specvla", "report", short_path(folder), "--case-study", name])
    return made
