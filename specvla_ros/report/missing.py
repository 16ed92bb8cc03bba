"""What a report could show and does not, with the command that would make it."""

from __future__ import annotations

import shlex
from pathlib import Path

from specvla_ros.evaluation.latency import LOCKSTEP
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
    # A single evaluation in the folder itself leaves no room there for another one.
    lockstep = folder / LOCKSTEP if run.folder == folder else folder
    lacking = {
        "success in lockstep": (not group.lockstep, draft, lockstep),
        "threshold sweep": (not sweep_groups(group.lockstep), [*draft, *SWEEP], folder),
        "speed-up": (not group.speeds, [*draft, *SWEEP, "--speed", str(FRAMES)], folder),
        "best threshold in real time": (
            not threshold_sweeps(group.realtime),
            [*draft, *SWEEP, "--latency", "measured"],
            folder,
        ),
        "success by latency": (not latency_panel(group.runs).curves, [*draft, *LATENCIES], folder),
    }
    made = {
        what: shlex.join([*common, *words, "--output", short_path(output)])
        for what, (absent, words, output) in lacking.items()
        if absent
    }
    # Films are played beside the folder, where they are not taken for one of the report's evaluations.
    films = folder.resolve().with_name(f"{folder.resolve().name}_films")
    if choose_films(group.runs):
        for run_failed, episodes in unfilmed_failures(group.runs).items():
            tasks = ", ".join(str(one.task) for one in episodes)
            what = f"film of a failure, task {tasks} ({run_failed.label})"
            made[what] = film_command(run_failed, episodes, films / run_failed.folder.name)
    else:
        first = [one for one in run.episodes if one.episode < FILMS] or run.episodes
        made["films"] = film_command(run, first, films / run.folder.name)
    if group.drafted and read_case_study(folder) is None:
        name = run.folder.relative_to(folder).as_posix()
        made["case study"] = shlex.join(["specvla", "report", short_path(folder), "--case-study", name])
    return made
