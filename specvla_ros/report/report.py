"""`specvla report`: reads a folder of evaluations and writes the page, its tables and its drawings."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.rig import Rig
from specvla_ros.evaluation.runs import Run, read_runs
from specvla_ros.report import contents
from specvla_ros.report.case_study import (
    ACTIONS,
    CaseStudy,
    play_case_study,
    read_case_study,
    write_case_study,
)
from specvla_ros.report.commands import commands, short_path
from specvla_ros.report.films import Film, make_films
from specvla_ros.report.group import Group, grouped
from specvla_ros.report.machines import machine_table, untold
from specvla_ros.report.missing import missing
from specvla_ros.report.page import Section, code, document, paragraph
from specvla_ros.report.repetition import unvarying_dimensions
from specvla_ros.report.result_tables import case_table
from specvla_ros.report.sheet import Sheet
from specvla_ros.report.speed import read_speeds
from specvla_ros.report.tree_picture import draw_case_study
from specvla_ros.shipped import NAME

PAGE = "index.html"
TITLE = "Speculative decoding of OpenVLA on LIBERO"
SECTIONS = {
    "success, accept length, speed": contents.results,
    "threshold sweep": contents.sweep,
    "where drafts are accepted": contents.acceptance,
    "real time": contents.real_time,
}


def write_report(folder: Path, output: Path) -> Path:
    """Read what is finished, and write the page.

    Returns:
        The page's path.

    Raises:
        ConfigurationError: the folder holds no episode, or something in it cannot be read.
    """
    runs, speeds, study = read_runs(folder), read_speeds(folder), read_case_study(folder)
    groups = grouped(runs, speeds)
    output.mkdir(parents=True, exist_ok=True)
    sheet, films = Sheet(), make_films(runs, output)
    sections = [Section("Words", [*map(paragraph, WORDS)])]
    sections += [
        Section(f"{group.title}: {title}", parts)
        for group in groups
        for title, make in SECTIONS.items()
        if (parts := make(group, sheet))
    ]
    if study:
        sections.append(Section("Case study", _case_study(study, sheet)))
    if films:
        sections.append(Section("Films", _films(films)))
    made_by = code([*commands(folder, runs, speeds), _report_command(folder, output, study)])
    sections.append(Section("Commands and machine", [made_by, *_machines(runs, sheet)]))
    absent = [f"# {group.title}: {what}\n{line}" for group in groups for what, line in missing(group, folder).items()]
    if absent:
        note = paragraph("Left out because nothing was measured; these commands make it, each on its own.")
        sections.append(Section("Not in this report", [note, code(absent)]))
    page = output / PAGE
    page.write_text(document(TITLE, [_introduction(groups)], sections))
    sheet.write(output)
    return page


def add_case_study(folder: Path, name: str, rig: Rig | None = None) -> None:
    """Decode an action of one evaluation again, and keep how it came about in the folder.

    Raises:
        ConfigurationError: no evaluation of that name, or it has no draft.
        SimulationError: LIBERO is not installed or cannot render.
    """
    runs = {run.folder.relative_to(folder).as_posix(): run for run in read_runs(folder)}
    if name not in runs:
        raise ConfigurationError(f"{folder} holds no evaluation {name!r}; expected one of {', '.join(runs)}")
    first = min(runs[name].episodes, key=lambda one: (one.task, one.episode))
    write_case_study(play_case_study(runs[name].options, name, first.task, first.episode, rig), folder)


OWN_MODEL = (
    "That is the package's own small model of OpenVLA's layout, trained in simulation on scripted demonstrations; not "
    "OpenVLA-7B."
)
WORDS = (
    "Draft: what is proposed for the tokens that are not decided yet. hold proposes the last action again, linear that "
    "it goes on changing as it did, eagle a tree by a trained layer (Spec-VLA's), none nothing: plain greedy decoding, "
    "one token a forward.",
    "Threshold, in bins: each of an action's seven numbers is one of 256 bins between its 1st and 99th percentile in "
    "the training data; a draft's token is accepted within so many bins of the model's own answer. At 0, strict, the "
    "action is the model's own.",
    "Round: one verification, a forward of the model over the whole draft; what it accepts is decided, and one more "
    "token. The first token comes with the prefill, the forward over image and instruction.",
    "Tokens per forward: an action's seven tokens over its forwards, the prefill among them; Spec-VLA's accept length.",
    "Lockstep: the scene waits for each action. Real time: it goes on meanwhile.",
    "Fast rendering: the pictures that the package's own model was trained with; a published checkpoint needs the "
    "simulator's own.",
)


def _report_command(folder: Path, output: Path, study: CaseStudy | None) -> str:
    words = ["specvla", "report", short_path(folder), "--output", short_path(output)]
    return shlex.join([*words, "--case-study", study.evaluation] if study else words)


def _machines(runs: Sequence[Run], sheet: Sheet) -> list[str]:
    """What the evaluations were made on, as far as they tell."""
    silent = untold(runs)
    note = f"{silent} of {len(runs)} evaluations do not say what they were made on."
    told = [sheet.table(machine_table(runs))] if silent < len(runs) else []
    return [*told, paragraph(note, "note")] if silent else told


def _introduction(groups: Sequence[Group]) -> str:
    lines = []
    for group in groups:
        episodes = sum(run.total.episodes for run in group.runs)
        lines.append(
            f"{group.title}: checkpoint {group.runs[0].checkpoint}, {len(group.runs)} evaluations, {episodes} episodes."
        )
        if group.runs[0].checkpoint == NAME:
            lines.append(OWN_MODEL)
        if unvarying := unvarying_dimensions(group.drafted):
            lines.append(
                f"{len(unvarying)} of the seven tokens hardly ever change from one action to the next: "
                f"{', '.join(unvarying)}. There hold, which proposes the action before, is accepted almost always."
            )
    return "".join(map(paragraph, lines))


def _case_study(study: CaseStudy, sheet: Sheet) -> list[str]:
    text = (
        f"One action of {study.suite}, task {study.task}, initial state {study.episode}, step {study.step} "
        f"({study.language}) with draft {study.draft}: of the first {ACTIONS} actions the one with most accepted "
        "drafts that are not the target's own answers."
    )
    caption = (
        "Each round's draft tree. A token is its bin, 0 to 255; in brackets its distance from the target's answer "
        "there. Grey: decided before. Blue: accepted. Orange: not taken. Green: the target's answer after them. Dots: "
        "drafts behind one that was not taken."
    )
    return [
        paragraph(text),
        f'<img class="camera" src="{escape(study.picture)}" alt="what the camera saw">',
        sheet.drawing("case_study", partial(draw_case_study, study), caption),
        sheet.table(case_table(study)),
    ]


def _films(films: Sequence[Film]) -> list[str]:
    shown = []
    for film in films:
        one = film.episode
        state = f"solved after {one.steps} steps" if one.success else f"not solved in {one.steps} steps"
        size = f"{film.size / 1e3:.0f} kB"
        caption = f"task {one.task}, state {one.episode}: {one.language}. {film.run.label}, {state} ({size})"
        video = f'<video controls muted loop playsinline preload="metadata" src="{escape(film.source)}"></video>'
        shown.append(f"<figure>{video}<figcaption>{escape(caption)}</figcaption></figure>")
    total = sum(film.size for film in films) / 1e6
    return [
        paragraph(f"The first filmed success and failure of each task, {total:.1f} MB in all.", "note"),
        f'<div class="films">{"".join(shown)}</div>',
    ]
