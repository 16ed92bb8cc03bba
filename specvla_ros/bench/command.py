"""`specvla bench`: runs the rows, shows them, and writes them for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from specvla_ros.bench.conditions import conditions
from specvla_ros.bench.entrants import Entrant, Observed, entrants, facts, load_plain
from specvla_ros.bench.frames import Frames, read_frames, render_frames, write_frames
from specvla_ros.bench.head_check import HeadCheck, check_head
from specvla_ros.bench.options import BenchOptions
from specvla_ros.bench.plot import phases_svg
from specvla_ros.bench.rates import Rates, measure_rates
from specvla_ros.bench.results import Row, measure
from specvla_ros.bench.tables import cost_on_screen, cost_table, notes, phase_table, phases_on_screen
from specvla_ros.bench.timeline import Timeline, record_timeline, timelines_svg
from specvla_ros.bench.work import WorkMeter
from specvla_ros.errors import ConfigurationError
from specvla_ros.memory import module_bytes
from specvla_ros.progress import pieces_bar
from specvla_ros.runtime import OpenVLAPolicy, current

JSON_FILE, MARKDOWN_FILE, PLOT_FILE, TIMELINE_FILE = "bench.json", "bench.md", "bench.svg", "timeline.svg"
WORTH_COUNTING = 1e9
"""Bytes of weights; torch takes the GPU's memory in pieces that are large beside a small model."""
TIMELINE_IMAGES = 4
"""Of which the last one's action is drawn."""


def run_bench(options: BenchOptions, console: Console) -> dict[str, Any]:
    """Measure every row in turn and write JSON, Markdown and a plot to the options' output.

    Raises:
        SpecVLAError: weights, a draft, recorded lengths or images cannot be used.
    """
    options.output.mkdir(parents=True, exist_ok=True)  # minutes before it is needed, if it cannot be made
    if options.threads:
        torch.set_num_threads(options.threads)
    plain = load_plain(options)
    with current(plain.decoder.target.device):
        return _run_rows(options, plain, console)


def _run_rows(options: BenchOptions, plain: OpenVLAPolicy, console: Console) -> dict[str, Any]:
    """`run_bench` once the weights are there."""
    recorded = read_frames(options.frames, options.count) if options.frames else None
    frames = recorded or render_frames(plain, options.count, options.fast_rendering)
    if options.save_frames:
        write_frames(frames, options.save_frames)
    target = plain.decoder.target
    meter = WorkMeter(target)
    with console.status("preparing the rows"):
        field = entrants(options, plain, meter, frames)
        rates = measure_rates(target.device, target.dtype)
    with pieces_bar(console) as bar:
        images = bar.add_task("images decoded in turn", total=len(frames.images))
        rows = measure(
            field,
            frames.images,
            frames.instruction,
            rates,
            ahead=options.ahead,
            advance=lambda: bar.advance(images),
        )
    head = _check_head(options, plain, frames, field[0])
    timelines = _timelines(field, frames)
    found = conditions(target.device, rates, _memory(plain, field))
    report = _report(options, plain, frames, rates, found, rows, head)
    title = _title(report)
    console.print(cost_on_screen(rows, title))
    console.print(phases_on_screen(rows))
    for line in [*notes(rows), *_head(report), *_write(options.output, report, rows, timelines, title)]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return report


def _report(
    options: BenchOptions,
    plain: OpenVLAPolicy,
    frames: Frames,
    rates: Rates,
    found: Mapping[str, str],
    rows: Sequence[Row],
    head: HeadCheck | None,
) -> dict[str, Any]:
    """What bench.json holds."""
    return {
        "command": options.command(),
        "model": options.size or Path(options.checkpoint).name or "the package's own",
        "random_weights": bool(options.size),
        **facts(plain),
        "frames": {"count": len(frames.images), "source": frames.source, "instruction": frames.instruction},
        "ahead": options.ahead,
        "bandwidth": rates.bandwidth,
        "arithmetic": rates.arithmetic,
        "conditions": found,
        "head": asdict(head) if head else None,
        "rows": [row.to_dict() for row in rows],
    }


def _check_head(options: BenchOptions, plain: OpenVLAPolicy, frames: Frames, greedy: Entrant) -> HeadCheck | None:
    """Of a checkpoint: random weights choose anything."""
    if options.size:
        return None
    assert isinstance(greedy.policy, Observed)
    return check_head(plain, frames, greedy.policy.actions)


def _timelines(field: Sequence[Entrant], frames: Frames) -> list[Timeline]:
    """Of the first row of each draft, strict where it is measured."""
    first = _first_of_each(field)
    named = [(row.name, row.policy.policy) for row in first if isinstance(row.policy, Observed)]
    images = frames.images[:TIMELINE_IMAGES]
    return [
        record_timeline(name, policy, images, frames.instruction)
        for name, policy in named
        if isinstance(policy, OpenVLAPolicy)
    ]


def _memory(plain: OpenVLAPolicy, field: Sequence[Entrant]) -> dict[str, int]:
    """Bytes on the GPU of the weights, and of these with what the first row of each draft adds; of a large model."""
    weights = module_bytes(plain.decoder.target)
    if weights < WORTH_COUNTING:
        return {}
    return {"weights": weights} | {
        f"weights, cache and graphs of {row.name}": row.memory + (weights if row.weights == "full" else 0)
        for row in _first_of_each([row for row in field if row.memory])
    }


def _first_of_each(field: Sequence[Entrant]) -> list[Entrant]:
    """Of each draft, and of each kind of weights."""
    first = {(row.draft, row.weights): row for row in reversed(field)}
    return list(reversed(first.values()))


def _title(report: Mapping[str, Any]) -> str:
    weights = ", random weights" if report["random_weights"] else ""
    ahead = ", each prepared while the one before is decoded" if report["ahead"] else ""
    return (
        f"{report['model']}{weights}, {report['parameters'] / 1e6:.1f} million parameters, {report['dtype']} on "
        f"{report['device']}; {report['frames']['count']} images in turn ({report['frames']['source']}){ahead}"
    )


def _write(
    folder: Path, report: dict[str, Any], rows: Sequence[Row], timelines: Sequence[Timeline], title: str
) -> list[str]:
    """The files; what to tell about them."""
    (folder / JSON_FILE).write_text(json.dumps(report, indent=1) + "\n")
    (folder / MARKDOWN_FILE).write_text(_markdown(report, rows, title))
    try:
        (folder / PLOT_FILE).write_text(phases_svg(rows))
        (folder / TIMELINE_FILE).write_text(timelines_svg(timelines))
    except ConfigurationError as error:
        return [f"no plots: {error}", f"figures: {folder}"]
    return [f"figures and plots: {folder}"]


def _head(report: Mapping[str, Any]) -> list[str]:
    """What was found of the head's 256 rows, where it was looked for."""
    return [HeadCheck(**report["head"]).sentence()] if report["head"] else []


def _markdown(report: Mapping[str, Any], rows: Sequence[Row], title: str) -> str:
    """The page that is committed: the command on top."""
    facts_of_machine = "".join(f"- {what}: {which}\n" for what, which in report["conditions"].items())
    remarks = "".join(f"- {note}\n" for note in notes(rows))
    return (
        f"    {report['command']}\n\n{title}.\n\n{cost_table(rows).markdown()}\n"
        f"Milliseconds by phase, median / p95 / p99:\n\n{phase_table(rows).markdown()}\n"
        + "".join(f"{sentence}\n\n" for sentence in _head(report))
        + (f"Empty rows:\n\n{remarks}\n" if remarks else "")
        + f"![Where the time goes]({PLOT_FILE})\n\n![One action]({TIMELINE_FILE})\n\n{facts_of_machine}"
    )
