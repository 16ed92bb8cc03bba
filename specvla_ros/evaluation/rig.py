"""What an evaluation is made of: tasks, a policy and scenes. Tests bring a stand-in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rollout import Environment
from specvla_ros.gpu_memory import free_memory
from specvla_ros.policy import Policy, expand_thresholds
from specvla_ros.sim.libero import LiberoEnvironment, Task, list_tasks
from specvla_ros.vla.checkpoint import read_norm_stats
from specvla_ros.vla.fingerprint import settings_mark, weights_mark

if TYPE_CHECKING:
    from specvla_ros.runtime import SharedModel

PREPARATION = "libero"
"""Of the scenes' pictures, which are upside down: OpenVLA's evaluation turns and crops them whatever the checkpoint's
data is called."""


@dataclass(slots=True)
class _Kept:
    """A model that is loaded.

    Attributes:
        identity: of what, see `_identity`.
        marks: of the drafts' weights that it has, by the draft's name.
    """

    identity: tuple[str, ...]
    model: SharedModel
    marks: dict[str, str] = field(default_factory=dict)

    def serves(self, identity: tuple[str, ...], marks: Mapping[str, str]) -> bool:
        """Whether it is that model, and none of its drafts was trained again meanwhile."""
        return self.identity == identity and all(self.marks.get(draft, mark) == mark for draft, mark in marks.items())


class Rig:
    """LIBERO and OpenVLA."""

    _kept: _Kept | None = None

    def tasks(self, options: EvaluationOptions) -> list[Task]:
        """All tasks of the suite."""
        return list_tasks(options.suite)

    def load_policy(self, options: EvaluationOptions) -> Policy:
        """The policy; on a CPU on one thread, whose rounding is its own: the workers are as many as the cores."""
        import torch

        from specvla_ros.runtime import load_policy

        free_memory()  # the evaluation before may have had another model
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
        """A policy for each, all of one checkpoint: they need the memory of one, and of each draft once.

        The model stays for the next evaluation, until one needs another: 7B takes a minute to load and to record.
        """
        wanted = _identity(several[0])
        by_draft = {one.draft: one for one in several}
        marks = {draft: weights_mark(one.draft_directories) for draft, one in by_draft.items()}
        if self._kept is None or not self._kept.serves(wanted, marks):
            self._kept = None  # first: two models would need twice the memory
            self._kept = self._load(several[0], wanted)
        self._kept.marks.update(marks)
        return [self._kept.model.policy(one.draft, expand_thresholds(one.threshold)) for one in several]

    def _load(self, options: EvaluationOptions, identity: tuple[str, ...]) -> _Kept:
        from specvla_ros.runtime import OpenVLAPolicy, SharedModel

        first = self.load_policy(options)
        assert isinstance(first, OpenVLAPolicy)
        return _Kept(identity, SharedModel(first, options.draft))

    def __getstate__(self) -> dict[str, Any]:
        """For a worker's process, which has no use for the model."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}

    def create_environment(self, options: EvaluationOptions, task: Task) -> Environment:
        """The scene of a task."""
        return LiberoEnvironment(task, image_size=options.image_size, fast_rendering=options.fast_rendering)


def _identity(options: EvaluationOptions) -> tuple[str, ...]:
    """What loading a model depends on, its draft aside."""
    directory = options.checkpoint_directory
    marks = weights_mark([directory]), settings_mark([directory])
    return str(directory), options.device, options.dtype, options.weights, unnorm_key(options) or "", *marks


def unnorm_key(options: EvaluationOptions) -> str | None:
    """Of the checkpoint, for the suite."""
    return suite_key(set(read_norm_stats(options.checkpoint_directory)), options.suite)


def suite_key(keys: set[str], suite: str) -> str | None:
    """The norm_stats key that OpenVLA's evaluation takes: the suite's, where the checkpoint has it."""
    return suite if keys & {suite, f"{suite}_no_noops"} else None
