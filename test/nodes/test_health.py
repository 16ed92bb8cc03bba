"""What the diagnostics say, without a node around them."""

from __future__ import annotations

import threading

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus

from specvla_ros.nodes import health
from specvla_ros.nodes.health import ERROR, OK, WARN, WINDOW, Health
from specvla_ros.nodes.throttle import Throttle


def status_of(subject: Health, **extra: str) -> DiagnosticStatus:
    return subject.message("specvla", Time(sec=5), extra).status[0]


def values_of(subject: Health, **extra: str) -> dict[str, str]:
    return {pair.key: pair.value for pair in status_of(subject, **extra).values}


def test_percentiles_accept_length_counts_and_extras_are_reported() -> None:
    subject = Health("loading")
    for latency in range(1, 102):
        subject.action_published(float(latency), 3.5, 1)
    subject.count("stale images")
    values = values_of(subject, draft="hold")
    assert values["latency p50 [ms]"] == "51.0" and values["latency p95 [ms]"] == "96.0"
    assert values["accept length [tokens per forward]"] == "3.50"
    assert values["commands"] == "101" and values["stale images"] == "1" and values["draft"] == "hold"


def test_the_accept_length_is_of_all_tokens_by_all_forwards_and_the_rounds_are_a_mean() -> None:
    subject = Health("loading")
    for accept_length, rounds in ((3.5, 1), (1.0, 6)):
        subject.action_published(1.0, accept_length, rounds)
    values = values_of(subject)
    assert (
        values["accept length [tokens per forward]"] == f"{14 / (2 + 7):.2f}"
        and values["verification rounds"] == "3.50"
    )


def test_what_was_long_ago_no_longer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(health.time, "monotonic", lambda: now)
    subject = Health("loading")
    for old in [True] * WINDOW + [False] * WINDOW:
        now += 1.0 if old else 0.1
        subject.image_arrived()
        subject.image_aged(5.0 if old else 0.01)
        subject.pose_arrived(5.0 if old else 0.01)
        subject.action_published(5000.0 if old else 10.0, 1.0 if old else 3.5, 6 if old else 1)
    values = values_of(subject)
    assert values["image rate [Hz]"] == values["ee_pose rate [Hz]"] == "10.0"
    assert values["image age p95 [ms]"] == values["ee_pose age p95 [ms]"] == values["latency p95 [ms]"] == "10.0"
    assert values["accept length [tokens per forward]"] == "3.50" and values["verification rounds"] == "1.00"


def test_a_status_is_told_when_its_kind_or_level_changes_and_not_when_its_figures_do() -> None:
    subject, told = Health("loading"), list[tuple[bytes, str, str]]()
    for level, kind, seconds in ((WARN, "late", 1), (WARN, "late", 2), (ERROR, "late", 3), (ERROR, "lost", 4)):
        subject.say(level, f"{kind} by {seconds} s", kind)
        if status := subject.changed_status("specvla"):
            told.append((status.level, status.message, status.name))
    assert told == [
        (WARN, "late by 1 s", "specvla"),
        (ERROR, "late by 3 s", "specvla"),
        (ERROR, "lost by 4 s", "specvla"),
    ]


def test_the_level_follows_what_happened_last() -> None:
    subject = Health("loading")
    assert (status_of(subject).level, status_of(subject).message) == (WARN, "loading")
    subject.action_published(1.0, 1.0, 6)
    assert (status_of(subject).level, status_of(subject).message) == (OK, "publishing commands")
    subject.say(ERROR, "no command: broken", "broken")
    assert (status_of(subject).level, status_of(subject).message) == (ERROR, "no command: broken")


def test_a_camera_that_falls_silent_has_no_rate_and_no_age_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(health.time, "monotonic", lambda: now)
    subject = Health("loading")
    assert subject.silence == 0.0, "none has come yet"
    for _ in range(3):
        now += 0.5
        subject.image_arrived()
    subject.action_published(1.0, 1.0, 6)
    subject.image_aged(0.01)
    assert values_of(subject)["image rate [Hz]"] == "2.0" and "image age p50 [ms]" in values_of(subject)
    assert subject.silence == 0.0
    now += 3.0
    assert subject.silence == 3.0
    assert values_of(subject)["image rate [Hz]"] == "0.0" and "image age p50 [ms]" not in values_of(subject)


def test_a_pose_that_is_used_has_its_rate_and_age_and_one_that_never_came_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(health.time, "monotonic", lambda: now)
    subject = Health("loading")
    assert not any("ee_pose" in name for name in values_of(subject))
    for age in (0.01, 0.02, 0.03):
        now += 0.1
        subject.pose_arrived(age)
    values = values_of(subject)
    assert values["ee_pose rate [Hz]"] == "10.0" and values["ee_pose age p50 [ms]"] == "20.0"


def test_counts_survive_threads_that_count_and_report_at_once() -> None:
    subject = Health("loading")

    def count() -> None:
        for number in range(2000):
            subject.count(f"kind {number % 50}")
            subject.count("all")

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        status_of(subject)
    assert values_of(subject)["all"] == "6000"


def test_a_throttle_silences_repeats_of_one_kind_and_no_other() -> None:
    throttle = Throttle(60.0)
    assert [throttle.is_due(kind) for kind in ("stale", "stale", "encoding", "encoding", "stale")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert all(Throttle(0.0).is_due("stale") for _ in range(3))
