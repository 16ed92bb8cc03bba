"""What an evaluation is made of: tasks, a policy and scenes. Tests bring a stand-in."""

from __future__ import annotations

from collections.abc import Sequence

from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rollout import Environment
from specvla_ros.gpu_memory import free_memory
from specvla_ros.policy import Policy, expand_thresholds
from specvla_ros.sim.libero import LiberoEnvironment, Task, list_tasks
from specvla_ros.vla.checkpoint import read_norm_stats

PREPARATION = "libero"
"""Of the scenes' pictures, which are upside down: OpenVLA's evaluation turns and crops them whatever the checkpoint's
data is called."""


class Rig:
    """LIBERO and OpenVLA."""

    def tasks(self, options: EvaluationOptions) -> list[Task]:
        """All tasks of the suite."""
        return list_tasks(options.suite)

    def load_policy(self, options: EvaluationOptions) -> Policy:
        """The policy; on a CPU on one thread, whose rounding is its own: the workers are as many as the cores."""
        import torch

        from specvla_ros.runtime import load_policy

        free_memory()  # the condition before had another model, or the same once more
        torch.set_num_threads(1)
        return load_policy(
            options.checkpoint_directory,
            options.draft,
            options.threshold,
            options.device,
            options.dtype,
            unnorm_key(options),
            preparation=PREPARATION,
            weights=options.weights,
        )

    def load_policies(self, several: Sequence[EvaluationOptions]) -> list[Policy]:
        """A policy for each, all of one checkpoint: they need the memory of one, and of each draft once."""
        from specvla_ros.runtime import OpenVLAPolicy, share_decoders

        first = self.load_policy(several[0])
        assert isinstance(first, OpenVLAPolicy)
        return [*share_decoders(first, [(one.draft, expand_thresholds(one.threshold)) for one in several])]

    def create_environment(self, options: EvaluationOptions, task: Task) -> Environment:
        """The scene of a task."""
        return LiberoEnvironment(task, image_size=options.image_size, fast_rendering=options.fast_rendering)


def unnorm_key(options: EvaluationOptions) -> str | None:
    """Of the checkpoint, for the suite."""
    return suite_key(set(read_norm_stats(options.checkpoint_directory)), options.suite)


def suite_key(keys: set[str], suite: str) -> str | None:
    """The norm_stats key that OpenVLA's evaluation takes: the suite's, where the checkpoint has it."""
    return suite if keys & {suite, f"{suite}_no_noops"} else None
