"""Buttons that are pressed, released, found and lost, in orders that DDS seldom takes: node and clock are stand-ins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.logging import get_logger
from std_msgs.msg import Bool
from stream_bench import Bench, Log

from specvla_ros.nodes import emergency_stop
from specvla_ros.nodes.emergency_stop import EmergencyStop
from specvla_ros.nodes.health import ERROR, WARN, Health
from specvla_ros.nodes.reporter import Reporter


class Buttons(Bench):
    """An active stream, and publishers on estop by name: who is there is said by `present`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *present: str) -> None:
        super().__init__()
        self.seconds = 100.0
        monkeypatch.setattr(emergency_stop.time, "monotonic", lambda: self.seconds)
        self.present, self.statuses, self.log = list(present), Log(), list[str]()
        reporter = Reporter("specvla", Health("loading"), get_logger("specvla"), self.statuses, self.stream.rest)
        self.stop = EmergencyStop(self, self.stream, reporter)

    def get_logger(self) -> Any:
        return SimpleNamespace(**{name: lambda _, name=name: self.log.append(name) for name in ("warning", "error")})

    def create_subscription(self, kind: type, topic: str, callback: Any, *_: Any, **__: Any) -> Any:
        self._callback = callback
        return SimpleNamespace(topic_name=f"/{topic}")

    def count_publishers(self, topic: str) -> int:
        assert topic == "/estop"
        return len(self.present)

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        assert topic == "/estop"
        return [SimpleNamespace(endpoint_gid=list(name.encode())) for name in self.present]

    def says(self, name: str, pressed: bool) -> None:
        info = {"publisher_gid": {"data": name.encode()}} if name else {}
        self._callback(Bool(data=pressed), info)

    @property
    def reason(self) -> str:
        return self.stream.gate.reason

    @property
    def status(self) -> str:
        return str(self.statuses.messages[-1].message)


def test_a_button_that_is_gone_for_longer_than_discovery_takes_is_released_by_anothers_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buttons = Buttons(monkeypatch, "a", "b")
    buttons.says("a", True)
    buttons.present.remove("a")
    buttons.seconds += 0.9
    buttons.says("b", False)
    assert "emergency stop: publish false" in buttons.reason, "it may only not have been seen yet"
    assert "another emergency stop is still pressed" in buttons.status
    buttons.seconds += 0.2
    buttons.says("b", False)
    assert "not enabled" in buttons.reason and "is released" in buttons.status


def test_each_button_that_is_pressed_needs_its_own_release(monkeypatch: pytest.MonkeyPatch) -> None:
    buttons = Buttons(monkeypatch, "a", "b")
    buttons.says("a", True)
    buttons.says("b", True)
    buttons.seconds += 60.0
    buttons.says("a", False)
    assert "emergency stop: publish false" in buttons.reason
    buttons.says("b", False)
    assert "not enabled" in buttons.reason


def test_each_press_and_its_release_are_logged_and_told_and_what_is_said_again_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buttons = Buttons(monkeypatch, "a")
    for pressed in (False, True, True, False, False, True, False):
        buttons.says("a", pressed)
    assert buttons.log == ["error", "warning"] * 2
    told = [(status.level, "is released" in status.message) for status in buttons.statuses.messages]
    assert told == [(ERROR, False), (WARN, True)] * 2


def test_where_nobody_is_told_apart_the_last_word_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    buttons = Buttons(monkeypatch, "a")
    buttons.says("", True)
    assert "emergency stop: publish false" in buttons.reason
    buttons.says("", False)
    assert "not enabled" in buttons.reason


def test_a_button_that_is_not_required_may_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    buttons = Buttons(monkeypatch)
    for present in ([], ["a"], ["a", "b"], ["b"], []):
        buttons.present = present
        buttons.stop.look(required=False)
        assert buttons.reason == ""


def test_one_of_several_required_buttons_that_is_lost_before_the_activation_needs_no_enabling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buttons = Buttons(monkeypatch, "a", "b")
    buttons.stream.change_gate(lambda gate: gate.with_active(False))
    buttons.says("a", False)
    buttons.stop.look(required=True)
    buttons.present.remove("b")
    buttons.stop.look(required=True)
    assert buttons.stream.change_gate(lambda gate: gate.with_active(True)) == ""


def test_a_required_button_that_was_lost_must_speak_again_and_one_that_is_silent_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buttons = Buttons(monkeypatch, "a")
    buttons.stream.change_gate(lambda gate: gate.with_active(False))
    buttons.stop.look(required=True)
    assert "nobody has published on estop" in buttons.reason
    buttons.stream.change_gate(lambda gate: gate.with_active(True))
    buttons.says("a", False)
    buttons.stop.look(required=True)
    assert buttons.reason == "" and "commands may go out" in buttons.status
    buttons.present = []
    buttons.stop.look(required=True)
    assert "nobody has published on estop" in buttons.status
    buttons.present = ["c"]
    buttons.stop.look(required=True)
    assert "nobody has published on estop" in buttons.reason
    buttons.says("c", False)
    buttons.stop.look(required=True)
    assert "not enabled" in buttons.reason and "not enabled" in buttons.status


@pytest.mark.parametrize("enabled", [True, False])
def test_one_of_two_required_buttons_that_is_lost_stops_the_arm_which_is_told_unless_it_is_disabled_anyway(
    monkeypatch: pytest.MonkeyPatch, enabled: bool
) -> None:
    buttons = Buttons(monkeypatch, "a", "b")
    buttons.says("a", False)
    buttons.stop.look(required=True)
    buttons.stream.change_gate(lambda gate: gate.with_enabled(enabled))
    buttons.present.remove("b")
    buttons.stop.look(required=True)
    assert "not enabled" in buttons.reason
    assert [status.message.split(";")[0] for status in buttons.statuses.messages] == (
        ["an emergency stop is lost: 1 of 2 still publish on estop"] if enabled else []
    )
