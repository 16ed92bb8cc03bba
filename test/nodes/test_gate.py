"""The gate before the arm, in whatever order its switches are turned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvla_ros.nodes.gate import Gate
from specvla_ros.nodes.health import ERROR, WARN

SWITCHES = ["with_stop", "with_enabled", "with_active", "with_guard", "with_change"]
TURNS = st.lists(st.tuples(st.sampled_from(SWITCHES), st.booleans()), max_size=30)


def after(turns: list[tuple[str, bool]]) -> Gate:
    gate = Gate()
    for switch, value in turns:
        gate = getattr(gate, switch)(value)
    return gate


@given(TURNS)
def test_an_emergency_stop_needs_its_release_and_then_an_enabling(turns: list[tuple[str, bool]]) -> None:
    gate = after([*turns, ("with_stop", True)])
    assert "emergency stop" in gate.reason
    assert "emergency stop" in gate.with_enabled(True).reason
    assert "emergency stop" in gate.with_enabled(True).with_active(True).reason
    released = gate.with_enabled(True).with_stop(False).with_active(True).with_guard(True).with_change(False)
    assert "not enabled" in released.reason
    assert released.with_enabled(True).reason == ""


@given(TURNS)
def test_the_gate_is_open_only_if_active_enabled_watched_and_not_stopped(
    turns: list[tuple[str, bool]],
) -> None:
    gate = after(turns)
    unhindered = gate.guarded and not gate.stopped and not gate.changing
    assert (gate.reason == "") == (gate.active and gate.enabled and unhindered)
    assert not (gate.enabled and gate.stopped)
    assert gate.with_active(False).reason != ""


def test_a_new_node_waits_for_its_activation_alone() -> None:
    assert "inactive" in Gate().reason and Gate().with_active(True).reason == ""


@pytest.mark.parametrize(
    ("switch", "value", "reason", "level"),
    [
        ("with_stop", True, "emergency stop: publish false", ERROR),
        ("with_guard", False, "no emergency stop", ERROR),
        ("with_enabled", False, "not enabled", WARN),
        ("with_change", True, "the draft is being changed", WARN),
        ("with_active", False, "inactive", WARN),
    ],
)
def test_each_switch_alone_closes_an_open_gate_with_its_own_words_and_a_missing_stop_is_an_error(
    switch: str, value: bool, reason: str, level: bytes
) -> None:
    closed = getattr(Gate().with_active(True), switch)(value)
    assert reason in closed.reason and closed.level == level


@given(TURNS)
def test_an_arm_that_lost_its_emergency_stop_needs_it_back_and_then_an_enabling(turns: list[tuple[str, bool]]) -> None:
    watched = after(turns).with_stop(False).with_guard(True).with_active(True).with_enabled(True).with_change(False)
    assert watched.reason == "" and watched.with_guard(True) == watched, "one that is still there changes nothing"
    lost = watched.with_guard(False)
    assert "no emergency stop" in lost.reason and "no emergency stop" in lost.with_enabled(True).reason
    assert "not enabled" in lost.with_guard(True).reason
    assert lost.with_guard(True).with_enabled(True).reason == ""


def test_a_node_that_waits_for_an_emergency_stop_before_its_activation_needs_no_enabling_for_it() -> None:
    assert Gate().with_guard(False).with_active(True).with_guard(True).reason == ""
