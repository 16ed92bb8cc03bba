"""Each link between the decoder and the arm, for whatever values it may be given."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from specvla_ros.nodes.safety import (
    AXES,
    POSITION_AXES,
    Box,
    Gripper,
    debounce,
    is_finite,
    keep_in_box,
    limit_change,
    limit_speed,
)


def vectors(length: int, low: float = -1e3, high: float = 1e3) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.floats(low, high), min_size=length, max_size=length).map(np.array)


LIMITS = vectors(AXES, 0.0, 1e3)


@given(vectors(7), st.integers(0, 6), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_value_that_is_no_number_spoils_the_action(values: np.ndarray, place: int, bad: float) -> None:
    assert is_finite(values)
    values[place] = bad
    assert not is_finite(values)


@given(vectors(AXES), LIMITS)
def test_no_axis_is_faster_than_its_limit_and_none_turns_round(motion: np.ndarray, limits: np.ndarray) -> None:
    limited = limit_speed(motion, limits)
    assert (np.abs(limited) <= limits).all()
    assert (limited * motion >= 0.0).all() and (np.abs(limited) <= np.abs(motion)).all()
    within = np.abs(motion) <= limits
    assert (limited[within] == motion[within]).all(), "bit for bit"


@given(vectors(AXES), vectors(AXES), LIMITS)
def test_no_axis_changes_by_more_than_its_limit(motion: np.ndarray, previous: np.ndarray, limits: np.ndarray) -> None:
    limited = limit_change(motion, previous, limits)
    # The limit is added to the previous motion, which rounds.
    assert (np.abs(limited - previous) <= limits + 1e-9).all()
    assert (np.minimum(previous, motion) <= limited).all() and (limited <= np.maximum(previous, motion)).all()
    within = (previous - limits <= motion) & (motion <= previous + limits)
    assert (limited[within] == motion[within]).all(), "bit for bit"


@given(vectors(AXES), LIMITS)
def test_a_wish_is_reached_in_steps_of_the_limit(motion: np.ndarray, limits: np.ndarray) -> None:
    limits = limits + 1.0
    reached = np.zeros(AXES)
    for _ in range(1001):
        reached = limit_change(motion, reached, limits)
    assert (reached == motion).all()


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    low = draw(vectors(POSITION_AXES, -10.0, 10.0))
    return Box(low, low + draw(vectors(POSITION_AXES, 0.01, 10.0)))


@given(vectors(AXES), vectors(POSITION_AXES, -20.0, 20.0), boxes(), st.floats(0.001, 10.0))
def test_a_hand_does_not_leave_the_box_and_from_outside_only_comes_nearer(
    motion: np.ndarray, position: np.ndarray, box: Box, metres: float
) -> None:
    kept = keep_in_box(motion, position, box, metres)
    reached = position + kept[:POSITION_AXES] * metres

    def outside(where: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum(box.low - where, where - box.high), 0.0)

    was_inside = outside(position) == 0.0
    assert (outside(reached)[was_inside] <= 1e-9).all()
    # One that flies through the whole box is stopped at its other side.
    assert (outside(reached)[~was_inside] <= outside(position)[~was_inside] + 1e-9).all()
    assert (kept * motion >= 0.0).all() and (np.abs(kept) <= np.abs(motion) + 1e-9).all()
    assert (kept[POSITION_AXES:] == motion[POSITION_AXES:]).all(), "the hand may turn anywhere"


@given(vectors(AXES, -1.0, 1.0), vectors(POSITION_AXES, -1.0, 1.0), st.floats(0.001, 1.0))
def test_a_motion_that_stays_inside_is_left_bit_for_bit(
    motion: np.ndarray, position: np.ndarray, metres: float
) -> None:
    box = Box(np.full(POSITION_AXES, -2.0), np.full(POSITION_AXES, 2.0))
    assert (keep_in_box(motion, position, box, metres) == motion).all()


def debounced(values: list[float], needed: int) -> list[float]:
    gripper, out = None, []
    for value in values:
        gripper = debounce(gripper, value, needed)
        out.append(gripper.value)
    return out


DECISIONS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60)


@given(DECISIONS)
def test_a_gripper_that_needs_one_decision_does_what_it_is_told(values: list[float]) -> None:
    assert debounced(values, 1) == values


@given(DECISIONS, st.integers(1, 10))
def test_a_gripper_changes_sides_only_after_enough_equal_decisions(values: list[float], needed: int) -> None:
    sides = [value >= 0.5 for value in values]
    out = [value >= 0.5 for value in debounced(values, needed)]
    assert out[0] == sides[0]
    for place in range(1, len(values)):
        lately = sides[max(0, place - needed + 1) : place + 1]
        agreed = len(lately) == needed and len(set(lately)) == 1
        assert out[place] == out[place - 1] or agreed
        assert out[place] == sides[place] or not agreed, "and then at once"


def test_a_disagreement_that_ends_is_forgotten() -> None:
    gripper = debounce(Gripper(1.0), 0.0, 3)
    assert gripper == Gripper(1.0, 1)
    assert debounce(gripper, 0.9, 3) == Gripper(0.9)


def test_the_middle_means_open() -> None:
    assert debounce(Gripper(0.9), 0.5, 3) == Gripper(0.5)
    assert debounce(Gripper(0.5), 0.9, 3) == Gripper(0.9)
