from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from specvla_ros.fake_policy import FakePolicy
from specvla_ros.sim.libero import Frame
from specvla_ros.training.disturbance import EXPERT_STRETCH, POLICY_STRETCH, SLIP_LENGTH, Disturbance, PolicyDriver

seeds = st.integers(0, 2**32)
STILL = np.zeros(7)
FRAME = Frame(np.zeros((8, 8, 3), np.uint8), None, step=0, success=False)


def pushed(seed: int, actions: NDArray[np.float64]) -> NDArray[np.float64]:
    disturbance = Disturbance(seed)
    return np.array([disturbance.apply(FRAME, values) for values in actions])


@given(seed=seeds)
def test_the_same_seed_pushes_the_same_way_and_another_one_does_not(seed: int) -> None:
    actions = np.random.default_rng(1).uniform(-0.8, 0.8, (120, 7))  # of a single push each axis may be at its limit
    first = pushed(seed, actions)
    assert np.array_equal(first, pushed(seed, actions))
    assert not np.array_equal(first, pushed(seed + 1, actions))


@given(seed=seeds, top_speed=st.floats(0.0, 1.0))
def test_only_the_motion_is_pushed_and_no_further_than_the_controller_goes(seed: int, top_speed: float) -> None:
    actions = np.random.default_rng(seed).uniform(-top_speed, top_speed, (100, 7))
    labels = actions.copy()
    disturbed = pushed(seed, actions)
    assert np.array_equal(actions, labels), "the label stays what the expert would do"
    assert np.array_equal(disturbed[:, 3:6], labels[:, 3:6]), "rotation"
    assert np.abs(disturbed[:, :6]).max() <= 1.0


def test_an_episode_begins_with_a_push_and_goes_on_with_pushes_now_and_then() -> None:
    moved = np.array([pushed(seed, np.tile(STILL, (400, 1)))[:, :3].any(axis=1) for seed in range(20)])
    assert moved[:, 0].all()
    assert 0.15 < moved[:, 20:].mean() < 0.4
    for row in moved:
        changes = np.flatnonzero(np.diff(row.astype(int)))
        assert changes[0] + 1 <= 7, "the first push is a few steps long"


def test_a_push_keeps_its_direction() -> None:
    motions = pushed(0, np.tile(STILL, (3, 1)))[:, :3]
    assert np.array_equal(motions, np.tile(motions[0], (3, 1)))


def test_fingers_slip_once_in_some_episodes_and_for_a_few_steps() -> None:
    slips = np.array([pushed(seed, np.tile(STILL, (120, 1)))[:, 6].sum() for seed in range(100)])
    assert set(slips) == {0, SLIP_LENGTH}
    assert 20 < (slips > 0).sum() < 60


def test_policy_and_expert_take_turns_of_the_stated_length() -> None:
    expert = np.full(7, 9.0)
    driver = PolicyDriver(FakePolicy(), "pick up the bowl", seed=0)
    by_expert = np.array([np.array_equal(driver.apply(FRAME, expert), expert) for _ in range(600)])
    turns = np.diff(np.flatnonzero(np.diff(by_expert, prepend=by_expert[0])))
    assert not by_expert[0], "the policy begins"
    assert all(POLICY_STRETCH[0] <= turn <= POLICY_STRETCH[1] for turn in turns[1::2])
    assert all(EXPERT_STRETCH[0] <= turn <= EXPERT_STRETCH[1] for turn in turns[::2])
