"""Made-up evaluations on the disk, as `specvla eval` leaves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.evaluation.speed_run import MEASUREMENT


def write_run(
    folder: Path,
    episodes: Sequence[EpisodeResult],
    *,
    draft: str = "none",
    threshold: int | tuple[int, ...] = 0,
    latency: str = "lockstep",
    **options: Any,
) -> EvaluationOptions:
    """Of the package's own checkpoint on the suite of the first episode."""
    values = {"draft": draft, "threshold": threshold, "latency": latency, "fast_rendering": True, **options}
    run = EvaluationOptions(episodes[0].suite, folder, **values)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps(run.conditions()))
    (folder / "episodes.jsonl").write_text("".join(json.dumps(one.to_dict()) + "\n" for one in episodes))
    return run


def write_speed(folder: Path, run: EvaluationOptions, speed_ups: dict[tuple[str, int], float], **changed: Any) -> None:
    """A measurement with rows by draft and threshold, by the drafts' names."""
    conditions = run.conditions()
    report = {
        **{name: conditions[name] for name in MEASUREMENT},
        "tasks": [0, 1],
        "frames": 50,
        "device": "a made-up processor",
        "rows": [
            {
                "draft": draft,
                "threshold": threshold,
                "mean_ms": 12.0,
                "median_ms": 11.0,
                "p95_ms": 13.0,
                "speed_up": ratio,
                "interval": [ratio - 0.1, ratio + 0.1],
                "fingerprint": changed.get("fingerprint", conditions["fingerprint"]),
            }
            for (draft, threshold), ratio in speed_ups.items()
        ],
        **changed,
    }
    drafts = dict.fromkeys(Path(draft).name for draft, _ in speed_ups if draft != "none")
    (folder / f"speed_{run.suite}_{'-'.join(drafts)}.json").write_text(json.dumps(report))


def episode(
    task: int = 0, episode: int = 0, success: bool = True, steps: int = 10, rounds: Sequence[int] = (5,), **values: Any
) -> EpisodeResult:
    """Every action has the same rounds, by drafts accepted."""
    positions = [0, *(flag for count in rounds for flag in [1] * count + [0])]
    fields: dict[str, Any] = {
        "suite": "libero_object",
        "language": f"do task {task}",
        "seed": 0,
        "actions": steps,
        "steps_held": 0,
        "steps_without_command": 0,
        "deviations": (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        "milliseconds": {"verify": (1.0, 2.0), "total": (3.0, 4.0)},
        **values,
    }
    return EpisodeResult(
        task=task,
        episode=episode,
        success=success,
        steps=steps,
        forwards=steps * (1 + len(rounds)),
        accepted=tuple(steps * list(rounds).count(count) for count in range(6)),
        position_accepts=tuple(steps * flag for flag in positions),
        **fields,
    )
