"""One decoded action, looked at closely: every round's draft tree, the target's answers, the accepted path."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.policy import PLAIN, Action, DecodeStats, Thresholds
from specvla_ros.runtime import OpenVLAPolicy
from specvla_ros.sim.libero import Frame
from specvla_ros.speculative.decode import Round, SpeculativeDecoder

CASE_STUDY = "case_study.json"
ACTIONS = 40
"""Of an episode's beginning, two seconds, of which one is kept."""


@dataclass(frozen=True, slots=True)
class CaseRound:
    """A verification in bins, 0 the lowest of 256 values; a token that is no action lies outside.

    Attributes:
        drafted: (n) bin of each node of the tree, the root, which is decided already, first.
        parents: (n) index of each node's parent; the root is its own.
        answers: (n) the target's bin after each node.
        path: the accepted nodes, the root first.
    """

    drafted: tuple[int, ...]
    parents: tuple[int, ...]
    answers: tuple[int, ...]
    path: tuple[int, ...]

    @classmethod
    def of(cls, seen: Round, action_ids: range) -> CaseRound:
        """What the decoder's observer saw. A higher token id is a lower value."""
        drafted, answers = (
            [action_ids[-1] - token for token in ids] for ids in (seen.tree.tokens.tolist(), seen.answers)
        )
        return cls(tuple(drafted), tuple(seen.tree.parents.tolist()), tuple(answers), tuple(seen.path))

    @property
    def committed(self) -> list[int]:
        """Bins that the round decided: the accepted drafts, and the target's answer after them."""
        return [*(self.drafted[node] for node in self.path[1:]), self.answers[self.path[-1]]]

    def distance(self, node: int) -> int:
        """From a node's bin to the target's answer at its parent, with its sign."""
        return self.drafted[node] - self.answers[self.parents[node]]


@dataclass(frozen=True, slots=True)
class CaseStudy:
    """An action and how it came about.

    Attributes:
        evaluation: whose action it is, by its folder below the report's.
        episode: initial state; `step` counts the episode's actions from 0.
        thresholds: bins, by dimension.
        first: bin that came with the prefill.
        picture: what the camera showed, a JPEG's data URI.
    """

    evaluation: str
    suite: str
    task: int
    language: str
    episode: int
    step: int
    draft: str
    thresholds: Thresholds
    first: int
    rounds: tuple[CaseRound, ...]
    picture: str

    @property
    def committed(self) -> list[int]:
        """The action's seven bins."""
        return [self.first, *(token for one in self.rounds for token in one.committed)]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CaseStudy:
        """The inverse of `dataclasses.asdict`, JSON's lists taken for tuples."""
        rounds = [CaseRound(**{key: tuple(numbers) for key, numbers in one.items()}) for one in values["rounds"]]
        return cls(**{**values, "rounds": tuple(rounds), "thresholds": tuple(values["thresholds"])})


@contextmanager
def observing(decoder: SpeculativeDecoder) -> Iterator[list[Round]]:
    """The rounds of what is decoded in the body."""
    rounds: list[Round] = []
    decoder.observer = rounds.append
    try:
        yield rounds
    finally:
        decoder.observer = None


def observe(policy: OpenVLAPolicy, image: NDArray[np.uint8], instruction: str) -> tuple[Action, tuple[CaseRound, ...]]:
    """One action and its rounds."""
    with observing(policy.decoder) as rounds:
        action = policy.act(image, instruction)
    ids = policy.decoder.target.config.action_ids
    return action, tuple(CaseRound.of(one, ids) for one in rounds)


def play_case_study(
    options: EvaluationOptions, evaluation: str, task: int, episode: int, rig: Rig | None = None
) -> CaseStudy:
    """Play the beginning of an episode and keep its most telling action.

    That is the one with most accepted drafts that are not the target's own answers; among equals the one with most
    accepted drafts, and of those the first.

    Raises:
        ConfigurationError: the evaluation has no draft to look at.
    """
    if options.draft == PLAIN:
        raise ConfigurationError(f"a case study shows what a draft proposed, and {evaluation} has none")
    rig = rig or Rig()
    policy = rig.load_policy(options)
    assert isinstance(policy, OpenVLAPolicy)
    scene = next(one for one in rig.tasks(options) if one.index == task)
    seen: list[tuple[Frame, Action, tuple[CaseRound, ...]]] = []
    with closing(rig.create_environment(options, scene)) as environment:
        policy.reset()
        frame = environment.reset(episode, options.seed)
        while not frame.success and frame.step < ACTIONS:
            assert frame.image is not None
            action, rounds = observe(policy, frame.image, scene.language)
            seen.append((frame, action, rounds))
            frame = environment.step(action.values)
    frame, action, rounds = max(seen, key=lambda one: _telling(one[1].stats))
    assert frame.image is not None
    return CaseStudy(
        evaluation=evaluation,
        suite=options.suite,
        task=task,
        language=scene.language,
        episode=episode,
        step=frame.step,
        draft=options.draft,
        thresholds=policy.thresholds,
        first=policy.decoder.target.config.action_ids[-1] - action.tokens[0],
        rounds=rounds,
        picture=_data_uri(frame.image),
    )


def _telling(stats: DecodeStats) -> tuple[int, int]:
    return sum(distance > 0 for distance in stats.deviations), sum(stats.accepted)


def write_case_study(study: CaseStudy, folder: Path) -> None:
    """case_study.json."""
    (folder / CASE_STUDY).write_text(json.dumps(asdict(study)) + "\n")


def read_case_study(folder: Path) -> CaseStudy | None:
    """The folder's, if it has one.

    Raises:
        ConfigurationError: the file is not a case study.
    """
    path = folder / CASE_STUDY
    if not path.is_file():
        return None
    try:
        return CaseStudy.from_dict(json.loads(path.read_text()))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{path} is not a case study ({error}); delete it and make it again") from error


def _data_uri(image: NDArray[np.uint8]) -> str:
    """LIBERO's (H, W, 3) RGB image, upright."""
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[::-1, :, ::-1]))
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
