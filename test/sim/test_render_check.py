"""A real OpenGL driver, in a process of its own."""

from __future__ import annotations

import pytest

from specvla_ros.sim.render_check import render_check

pytest.importorskip("mujoco", reason="MuJoCo is not installed: make venv brings it")


def test_a_working_driver_is_named() -> None:
    works, found = render_check()
    assert works, found
    backend, _, renderer = found.partition(": ")
    assert backend and renderer


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere", "EGL"), ("MUJOCO_GL", "unknown", "invalid value")],
)
def test_a_broken_driver_is_an_answer_and_no_crash(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv(name, value)
    works, error = render_check()
    assert not works and reason in error
