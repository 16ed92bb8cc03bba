from __future__ import annotations

import numpy as np
import pytest
from fake_environment import FakeEnvironment
from numpy.typing import NDArray
from stand_ins import task

from specvla_ros.evaluation.speedup import Clip, bootstrap_ratio, measure_clips, measure_speed, record_frames
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.policy import Action, DecodeStats

TASK = task("libero_spatial", 1)
IMAGES = [np.full((32, 32, 3), brightness, np.uint8) for brightness in (10, 20, 30, 40)]


class Clockwork:
    """Takes the milliseconds that it is told, one after the other; notes its turns."""

    thresholds = (0, 0, 0, 0, 0, 0, 0)

    def __init__(self, name: str, milliseconds: list[float], turns: list[tuple[str, int]]) -> None:
        self._name, self._milliseconds, self._turns = name, milliseconds, turns
        self._acted = 0

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        self._turns.append((self._name, int(image[0, 0, 0])))
        milliseconds = self._milliseconds[self._acted]
        self._acted += 1
        return Action(np.zeros(7), (0,) * 7, DecodeStats((5,), 2, self.thresholds, {"total": milliseconds}))

    def reset(self) -> None:
        self._acted = 0
        self._turns.append((self._name, 0))


def test_the_speed_up_is_of_the_same_frames_and_the_warm_up_does_not_count() -> None:
    plain = Clockwork("plain", [20.0, 30.0, 20.0, 30.0], [])
    fast = Clockwork("fast", [10.0, 15.0, 10.0, 15.0], [])
    baseline, row = measure_speed([plain, fast], IMAGES, "do it")
    assert baseline.speed_up == 1 and baseline.interval == (1, 1) and baseline.median_ms == 25
    assert row.mean_ms == 12.5 and row.speed_up == 2
    assert row.interval == (2, 2), "each frame is compared with itself: twice as fast on every one is sure"


def test_policies_take_turns_frame_by_frame_and_none_is_always_first() -> None:
    turns: list[tuple[str, int]] = []
    measure_speed([Clockwork(name, [1.0] * 4, turns) for name in "abc"], IMAGES, "do it")
    warm_up, measured = turns[:6], turns[6:]
    assert warm_up == [("a", 10), ("a", 0), ("b", 10), ("b", 0), ("c", 10), ("c", 0)], "reset after it"
    assert [brightness for _, brightness in measured] == [10] * 3 + [20] * 3 + [30] * 3 + [40] * 3
    assert ["".join(name for name, _ in measured[i : i + 3]) for i in (0, 3, 6, 9)] == ["abc", "bca", "cab", "abc"]


def test_drafts_forget_an_episode_before_the_next_and_each_has_its_instruction() -> None:
    told: list[tuple[str, int]] = []

    class Listening(FakePolicy):
        def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
            told.append((instruction, self.resets))
            return super().act(image, instruction)

    measure_clips([Listening()], [Clip(IMAGES[:1], "one"), Clip(IMAGES[:2], "two")])
    assert told == [("one", 0), ("one", 1), ("two", 1), ("two", 2), ("two", 2)], "each one's first action warms up"


def test_of_several_episodes_the_interval_says_how_much_they_differ() -> None:
    """Within an episode all frames are alike, so that those of a single one would say nothing."""

    class Changing(Clockwork):
        """Ten milliseconds an action with the instruction "quick", twenty with another."""

        def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
            self._milliseconds = [10.0 if instruction == "quick" else 20.0] * 4
            return super().act(image, instruction)

    clips = [Clip(IMAGES[:3], instruction) for instruction in ("quick", "slow", "quick", "slow")]
    _, row = measure_clips([Clockwork("plain", [20.0] * 4, []), Changing("fast", [], [])], clips)
    assert row.mean_ms == 15 and row.speed_up == pytest.approx(20 / 15)
    assert row.interval == (1, 2), "whole episodes are drawn"


def test_the_interval_is_wide_where_frames_differ_and_repeats() -> None:
    generator = np.random.default_rng(1)
    plain, fast = generator.normal(100, 1, 200), generator.normal(50, 20, 200)
    low, high = bootstrap_ratio(plain, fast)
    assert low < plain.mean() / fast.mean() < high and 0.05 < high - low < 0.5
    assert (low, high) == bootstrap_ratio(plain, fast)
    assert bootstrap_ratio(plain[:20], fast[:20])[1] - bootstrap_ratio(plain[:20], fast[:20])[0] > high - low


@pytest.mark.parametrize(("success_step", "frames"), [(0, 5), (2, 3)])
def test_frames_are_those_of_an_episode_as_far_as_it_goes(success_step: int, frames: int) -> None:
    scene = FakeEnvironment({"suite": TASK.suite, "task": 1}, success_step)
    images = record_frames(FakePolicy(), scene, TASK, 5)
    assert [image[0, 0, 0] for image in images] == [7 * step for step in range(frames)]
