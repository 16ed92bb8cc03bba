"""Small demonstration files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from specvla_ros.sim.libero import Task
from specvla_ros.training.demonstrations import Demonstration, append_demonstration, demonstration_file


def record(
    directory: Path,
    name: str = "pick_up_the_bowl",
    *,
    suite: str = "libero_spatial",
    episodes: int = 1,
    steps: int = 8,
    landmarks: bool = True,
) -> Path:
    """Write a task's file: every frame is a noise of its own, every action too; the gripper closes half-way."""
    generator = np.random.default_rng(len(name))
    task = Task(suite, 0, name.replace("_", " "), Path(f"{name}.bddl"), Path(f"{name}.pruned_init"))
    for _ in range(episodes):
        actions = generator.uniform(-1.0, 1.0, (steps, 7))
        actions[:, 6] = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)
        coarse = generator.integers(0, 256, (steps, 8, 8, 3), dtype=np.uint8)
        append_demonstration(
            demonstration_file(directory, task),
            task,
            Demonstration(
                language=name.replace("_", " "),
                images=coarse.repeat(16, axis=1).repeat(16, axis=2),
                actions=actions,
                states=generator.normal(size=(steps, 4)),
                end_effector=generator.normal(size=(steps, 6)),
                gripper_opening=np.full(steps, 0.04),
                landmarks=generator.uniform(0.2, 0.8, (steps, 3, 5)).astype(np.float32) if landmarks else None,
                seed=0,
            ),
        )
    return demonstration_file(directory, task)
