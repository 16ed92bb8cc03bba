"""`specvla eval --speed`: a sweep's drafts and thresholds timed against plain greedy decoding in one run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from specvla_ros.evaluation.draft_names import short_draft
from specvla_ros.evaluation.evaluate import chosen_tasks
from specvla_ros.evaluation.json_file import replace_json
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.evaluation.speedup import Clip, measure_clips, record_frames
from specvla_ros.evaluation.sweep import plain_name
from specvla_ros.evaluation.threshold import threshold_text
from specvla_ros.policy import PLAIN, Policy
from specvla_ros.sim.libero import Task

SPEED_FILES = "speed*.json"
"""Of all measurements in a folder; an earlier version of this package wrote `speed.json`."""

MARK_LENGTH = 8
"""Hexadecimal digits that distinguish measurements of the same drafts in one folder."""
LONGEST_DRAFTS = 80
"""Letters of their names in a file's name."""
MEASUREMENT, ROW = (
    ("suite", "checkpoint", "fingerprint", "dtype", "weights", "fast_rendering", "image_size"),
    ("draft", "threshold", "fingerprint"),
)
"""The conditions that a measurement says of itself, and of each of its rows."""


def run_speeds(sweep: Sequence[EvaluationOptions], frames: int, output: Path, rig: Rig) -> dict[Path, dict[str, Any]]:
    """Time every draft and threshold of the sweep on each of its suites, and write a file for each suite.

    Args:
        frames: of a suite, at most, spread over its tasks; an episode that plain greedy decoding drives may end
            before.

    Returns:
        What was written, by file.

    Raises:
        SpecVLAError: the checkpoint, a draft or the scene cannot be used.
    """
    output.mkdir(parents=True, exist_ok=True)
    reports: dict[Path, dict[str, Any]] = {}
    for suite in dict.fromkeys(one.suite for one in sweep):
        several = [one for one in sweep if one.suite == suite]
        path = output / speed_file(several, frames)
        reports[path] = _measure(several, frames, rig)
        replace_json(path, reports[path])
    return reports


def speed_file(sweep: Sequence[EvaluationOptions], frames: int) -> str:
    """Name of a measurement: suite, drafts, and a mark of all that was timed, so that another one stands beside it."""
    timed = dict.fromkeys((one.draft, threshold_text(one.threshold)) for one in sweep if one.draft != PLAIN)
    drafts = "-".join(dict.fromkeys(plain_name(short_draft(draft)) for draft, _ in timed)) or PLAIN
    timed_on = (sweep[0].tasks, frames, sweep[0].device, sweep[0].dtype, sweep[0].weights)
    mark = hashlib.sha256(repr((*timed, timed_on)).encode()).hexdigest()[:MARK_LENGTH]
    return f"speed_{sweep[0].suite}_{drafts[:LONGEST_DRAFTS]}_{mark}.json"


def _measure(sweep: Sequence[EvaluationOptions], frames: int, rig: Rig) -> dict[str, Any]:
    """The rows of one suite, on frames of all its tasks that the sweep has."""
    plain = replace(sweep[0], draft=PLAIN, threshold=0)
    several = [plain, *{(one.draft, one.threshold): one for one in sweep if one.draft != PLAIN}.values()]
    policies = rig.load_policies(several)
    tasks = chosen_tasks(rig.tasks(plain), plain)[:frames]
    counts = [frames // len(tasks) + (index < frames % len(tasks)) for index in range(len(tasks))]
    clips = [_record(rig, plain, policies[0], task, count) for task, count in zip(tasks, counts, strict=True)]
    speeds = measure_clips(policies, clips)
    conditions = plain.conditions()
    return {
        **_chosen(conditions, MEASUREMENT),
        "tasks": [task.index for task in tasks],
        "frames": sum(len(clip.images) for clip in clips),
        "device": _device(plain.device),
        "rows": [
            {**_chosen(one.conditions(), ROW), **asdict(speed)} for one, speed in zip(several, speeds, strict=True)
        ],
    }


def _chosen(conditions: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: conditions[name] for name in names}


def _record(rig: Rig, options: EvaluationOptions, policy: Policy, task: Task, count: int) -> Clip:
    """The beginning of a task's first episode."""
    with closing(rig.create_environment(options, task)) as environment:
        return Clip(record_frames(policy, environment, task, count, options.seed), task.language)


def speed_table(report: dict[str, Any]) -> Table:
    """For the screen."""
    table = Table(title=f"{report['suite']}: {report['frames']} frames in turn, one action each, on {report['device']}")
    for heading in ("draft", "threshold", "ms", "p95 ms", "speed-up", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "draft" else "right", overflow="fold")
    for row in report["rows"]:
        low, high = row["interval"]
        table.add_row(
            row["draft"],
            threshold_text(row["threshold"]),
            f"{row['median_ms']:.1f}",
            f"{row['p95_ms']:.1f}",
            f"{row['speed_up']:.2f}",
            f"{low:.2f} - {high:.2f}",
        )
    return table


def _device(name: str) -> str:
    """What auto, cpu or cuda:N is; of a CPU how many threads `load_policy` decodes with."""
    import torch

    from specvla_ros.runtime import select_device

    device = select_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"the CPU, {torch.get_num_threads()} thread"
