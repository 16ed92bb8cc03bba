"""What an evaluation is made of: tasks, a policy and scenes. Tests bring a stand-in."""

from __future__ import annotations

from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rollout import Environment
from specvla_ros.policy import Policy
from specvla_ros.sim.libero import LiberoEnvironment, Task, list_tasks


class Rig:
    """LIBERO and OpenVLA."""

    def tasks(self, options: EvaluationOptions) -> list[Task]:
        """All tasks of the suite."""
        return list_tasks(options.suite)

    def load_policy(self, options: EvaluationOptions) -> Policy:
        """The policy on one thread: the workers are as many as the cores, and one thread's rounding is its own."""
        import torch

        from specvla_ros.runtime import load_policy
        from specvla_ros.vla.checkpoint import read_norm_stats

        torch.set_num_threads(1)
        directory = options.checkpoint_directory
        return load_policy(
            directory,
            options.draft,
            options.threshold,
            unnorm_key=suite_key(set(read_norm_stats(directory)), options.suite),
        )

    def create_environment(self, options: EvaluationOptions, task: Task) -> Environment:
        """The scene of a task."""
        return LiberoEnvironment(task, image_size=options.image_size, fast_rendering=options.fast_rendering)


def suite_key(keys: set[str], suite: str) -> str | None:
    """The norm_stats key that OpenVLA's evaluation takes: the suite's, where the checkpoint has it."""
    return suite if keys & {suite, f"{suite}_no_noops"} else None
