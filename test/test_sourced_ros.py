"""`specvla` of an environment with a ROS 2 of its own, in a terminal where another one is sourced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import specvla_ros
from specvla_ros.sourced_ros import leave_sourced_ros


@pytest.fixture
def sourced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ROS 2 whose rclpy cannot be imported, sourced over an environment with its own."""
    own, other = tmp_path / "environment", tmp_path / "opt" / "ros"
    for prefix in (own, other):
        (prefix / "share" / "rclpy").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(own))
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{other}:{own}")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{other}/lib:{own}/lib:/opt/cuda/lib")
    monkeypatch.setenv("PYTHONPATH", f"{other}/lib/python3.12/site-packages")
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    return other


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, str]]]:
    """What would have been started in this process's place."""
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    return started


def test_the_program_starts_again_without_what_was_sourced(
    tmp_path: Path, sourced: Path, starts: list[tuple[str, list[str], dict[str, str]]]
) -> None:
    leave_sourced_ros()
    [(program, arguments, environment)] = starts
    own = tmp_path / "environment"
    assert (program, arguments) == (sys.executable, sys.orig_argv)
    assert environment["AMENT_PREFIX_PATH"] == str(own)
    assert environment["LD_LIBRARY_PATH"] == f"{own}/lib:/opt/cuda/lib"
    assert not {"PYTHONPATH", "RMW_IMPLEMENTATION"} & environment.keys()


def test_an_environment_without_a_ros_uses_the_sourced_one(
    tmp_path: Path, sourced: Path, starts: list[tuple[str, list[str], dict[str, str]]]
) -> None:
    (tmp_path / "environment" / "share" / "rclpy").rmdir()
    leave_sourced_ros()
    assert not starts


def test_a_workspace_over_the_environments_own_ros_stays(
    tmp_path: Path, sourced: Path, starts: list[tuple[str, list[str], dict[str, str]]]
) -> None:
    (sourced / "share" / "rclpy").rmdir()
    leave_sourced_ros()
    assert not starts


def test_the_command_imports_its_own_ros_where_another_is_sourced(tmp_path: Path) -> None:
    if not (Path(sys.prefix) / "share" / "rclpy").is_dir():
        pytest.skip("the environment has no ROS 2 of its own")
    sourced = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if any(Path(specvla_ros.__file__).is_relative_to(path) for path in sourced):
        pytest.skip("the package is not in the environment, but in a workspace that is sourced")
    package = tmp_path / "lib" / "rclpy"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the sourced one')")
    (tmp_path / "share" / "rclpy").mkdir(parents=True)
    command = [sys.executable, "-m", "specvla_ros.cli", "replay-check", str(tmp_path / "nowhere")]
    environment = {**os.environ, "AMENT_PREFIX_PATH": str(tmp_path), "PYTHONPATH": str(package.parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "nowhere" in result.stderr and "the sourced one" not in result.stderr
