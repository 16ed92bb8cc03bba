from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fake_environment import FakeEnvironment
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from stand_ins import task

from specvla_ros.evaluation.latency import parse_latency
from specvla_ros.evaluation.rollout import EpisodeResult, run_episode
from specvla_ros.policy import Action, DecodeStats
from specvla_ros.sim.libero import Frame

TASK = task("libero_spatial", 4)


class Counting:
    """Each command names the frame it was computed from, counted from 1; `rounds` are those of each action in turn."""

    thresholds = (0, 0, 0, 0, 0, 0, 0)

    def __init__(self, rounds: Sequence[int] = (1,)) -> None:
        self._rounds = rounds
        self._actions = 0

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        rounds = self._rounds[self._actions % len(self._rounds)]
        self._actions += 1
        accepted = (6 - rounds, *[0] * (rounds - 1))
        stats = DecodeStats(accepted, 1 + rounds, self.thresholds, {"total": 30.0 * rounds})
        return Action(np.array([1 + int(image[0, 0, 0]) // 7] * 6 + [0.25]), (0,) * 7, stats)

    def reset(self) -> None:
        pass


class Recorder(FakeEnvironment):
    """Keeps what the arm was told, and which frames were rendered."""

    def __init__(self, success_step: int = 0) -> None:
        super().__init__({"suite": TASK.suite, "task": TASK.index}, success_step)
        self.told: list[NDArray[np.float64]] = []
        self.rendered = [0]

    def step(self, values: NDArray[np.float64], render: bool = True) -> Frame:
        self.told.append(values.copy())
        frame = super().step(values, render)
        if render:
            self.rendered.append(frame.step)
            return frame
        return Frame(None, None, frame.step, frame.success)

    @property
    def frames(self) -> list[int]:
        """For each step the frame that its command came from; -1 where the arm rests."""
        return [int(values[0]) - 1 for values in self.told]


def play(latency: str, steps: int, rounds: Sequence[int] = (1,), **values: Any) -> tuple[Recorder, EpisodeResult]:
    scene = Recorder()
    result = run_episode(Counting(rounds), scene, TASK, 0, 0, steps, latency=parse_latency(latency), **values)
    return scene, result


@pytest.mark.parametrize(
    ("latency", "frames"),
    [
        ("lockstep", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("fixed:0", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        # A command that comes within a step is in force from the next one on.
        ("fixed:1", [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("fixed:50", [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        # Exactly two steps: every second frame is looked at.
        ("fixed:100", [0, 0, 0, 1, 1, 3, 3, 5, 5, 7]),
        # One and a half: begun on frame 1 at 50 ms, ready at 125; begun on frame 2 then, ready at 200; on 4 at once.
        ("fixed:75", [0, 0, 0, 1, 2, 2, 4, 5, 5, 7]),
    ],
)
def test_a_command_is_in_force_from_the_first_step_that_begins_when_it_is_there(
    latency: str, frames: list[int]
) -> None:
    assert play(latency, 10)[0].frames == frames


def test_what_is_not_looked_at_is_not_rendered() -> None:
    scene, result = play("fixed:100", 10)
    assert scene.rendered == [0, 1, 3, 5, 7, 9] and result.actions == 6
    scene, _ = play("fixed:100", 10, on_frame=lambda frame: None)
    assert scene.rendered == list(range(11)), "a film needs every frame"


def test_a_stale_command_gives_rest_with_the_gripper_as_it_was() -> None:
    scene, result = play("fixed:500", 14, hold_time=0.2)
    assert scene.frames == [0] * 6 + [-1] * 8, "0.2 s and the step in which they end; the next one is stale as it comes"
    assert {values[6] for values in scene.told} == {0.25}
    assert (result.steps_held, result.steps_without_command) == (12, 8)
    scene, result = play("fixed:500", 14, hold_time=1.0)
    assert scene.frames == [0] * 11 + [1] * 3 and result.steps_without_command == 0


def test_a_modelled_latency_counts_each_actions_own_rounds() -> None:
    scene, _ = play("model:40+10", 9, rounds=(1, 1, 6, 1))
    # Frame 1 takes one step, frame 2 with its six rounds two; the next with six is frame 7.
    assert scene.frames == [0, 0, 1, 1, 2, 4, 5, 6, 6]
    assert play("measured", 9, rounds=(1, 1, 6, 1))[0].frames == play("model:0+30", 9, rounds=(1, 1, 6, 1))[0].frames


def test_lockstep_holds_nothing_and_counts_every_step_as_an_action() -> None:
    _, result = play("lockstep", 10)
    assert (result.steps, result.actions, result.steps_held, result.steps_without_command) == (10, 10, 0, 0)


def test_success_ends_an_episode_whose_frame_nobody_would_have_looked_at() -> None:
    scene = Recorder(success_step=4)
    result = run_episode(Counting(), scene, TASK, 0, 0, latency=parse_latency("fixed:400"))
    assert result.success and result.steps == 4


@given(st.integers(1, 400), st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_no_command_comes_before_its_time_and_none_is_overtaken(floor: int, rounds: list[int]) -> None:
    scene, result = play(f"model:{floor}+7", 36, rounds, hold_time=10.0)
    frames = scene.frames
    assert frames == sorted(frames), "an older command never follows a newer one"
    for step, frame in enumerate(frames[1:], start=1):
        assert frame == 0 or 50 * (step - frame) >= floor + 7
    assert (
        result.actions <= 2 + 36 * 50 / (floor + 7)
        and play(f"model:{floor}+7", 36, rounds, hold_time=10.0)[0].frames == frames
    )
