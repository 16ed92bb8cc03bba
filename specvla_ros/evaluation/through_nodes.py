"""`specvla eval --ros`: the same episodes through the policy node and the LIBERO bridge, in lockstep over DDS."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from specvla_ros.demo import Watch, listening, node_process, require_success
from specvla_ros.errors import SimulationError
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import PREPARATION, unnorm_key
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.evaluation.schedule import Job
from specvla_ros.msg import DecodeStats as StatsMessage
from specvla_ros.policy import DecodeStats, expand_thresholds
from specvla_ros.sim.libero import Task

POLICY, BRIDGE = "policy_node", "libero_bridge"
LAST_STATS = 2.0
"""Seconds that the last action's statistics may still be on their way when the bridge has ended."""


def play_through_nodes(
    options: EvaluationOptions, tasks: Sequence[Task], jobs: Sequence[Job]
) -> Generator[EpisodeResult, None, None]:
    """Results one after the other: one policy node for all, a bridge for each episode; logs in the folder `nodes`.

    Raises:
        SimulationError: a node ended early or the policy was not loaded; the message says why.
    """
    if not jobs:
        return
    # One machine's business, whoever else is on the network.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    logs = options.output / "nodes"
    logs.mkdir(parents=True, exist_ok=True)
    of_index, watch = {task.index: task for task in tasks}, Watch()
    with node_process(POLICY, "policy.yaml", policy_parameters(options), logs) as policy, listening(watch):
        for job in jobs:
            yield _play(options, of_index[job.task], job.episode, policy, watch, logs)


def policy_parameters(options: EvaluationOptions) -> dict[str, Any]:
    """Of the node, so that it decodes as `Rig.load_policy` does."""
    return {
        "checkpoint": options.checkpoint_directory,
        "unnorm_key": unnorm_key(options) or "",
        "image_preparation": PREPARATION,
        "draft": options.draft,
        "thresholds": list(expand_thresholds(options.threshold)),
        "device": options.device,
        "dtype": options.dtype,
        "weights": options.weights,
        "max_image_age": 0.0,  # the scene waits, so no image is too old
    }


def bridge_parameters(options: EvaluationOptions, task: Task, episode: int, result: Path) -> dict[str, Any]:
    """Of one episode."""
    return {
        "suite": task.suite,
        "task": task.index,
        "episode": episode,
        "seed": options.seed,
        "max_steps": options.max_steps,
        "image_size": options.image_size,
        "fast_rendering": options.fast_rendering,
        "video": options.film(task, episode) if episode < options.videos else "",
        "result": result,
        # An image that is sent again is decoded again, and would count as another action.
        "command_timeout": 10.0,
        "policy_timeout": 600.0,
    }


def decode_stats(message: StatsMessage) -> DecodeStats:
    """The decoder's statistics from their message."""
    phases = ("prepare", "vision", "prefill", "draft", "verify")
    milliseconds = {phase: getattr(message, f"{phase}_ms") for phase in phases}
    return DecodeStats(
        accepted=tuple(message.accepted),
        forwards=message.target_forwards,
        deviations=tuple(message.deviations),
        milliseconds={**milliseconds, "total": message.decode_ms},
    )


def _play(
    options: EvaluationOptions,
    task: Task,
    episode: int,
    policy: subprocess.Popen[bytes],
    watch: Watch,
    logs: Path,
) -> EpisodeResult:
    result = logs.resolve() / "result.json"
    result.unlink(missing_ok=True)
    watch.stats.clear()
    with node_process(BRIDGE, "libero.yaml", bridge_parameters(options, task, episode, result), logs) as bridge:
        while bridge.poll() is None and policy.poll() is None and not watch.failure:
            time.sleep(0.05)
        if policy.poll() is not None:
            require_success(policy, POLICY, logs)
            raise SimulationError(f"{POLICY} ended before the episode was over; its log is in {logs}")
    if watch.failure:
        raise SimulationError(watch.failure)
    require_success(bridge, BRIDGE, logs)
    report = json.loads(result.read_text())
    deadline = time.monotonic() + LAST_STATS
    while len(watch.stats) < report["steps"] and time.monotonic() < deadline:
        time.sleep(0.01)
    if not watch.stats:
        raise SimulationError("no decode statistics were heard; check that nothing else uses this ROS_DOMAIN_ID")
    stats = [decode_stats(message) for message in watch.stats]
    return EpisodeResult.of(task, episode, options.seed, report["success"], report["steps"], stats)
