"""The launch files, where launch_ros is installed: what they declare, and what runs when they are launched."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rclpy

launch_ros = pytest.importorskip(
    "launch_ros", reason="launch_ros is in no package registry; it comes with a ROS 2 installation"
)

from installation import NOT_INSTALLED, installed  # noqa: E402
from launch.actions import (  # noqa: E402
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch_ros.actions import Node  # noqa: E402
from peer import PATIENCE, running_peer, wait_until  # noqa: E402

from launch import LaunchContext, LaunchDescription  # noqa: E402
from specvla_ros.errors import ConfigurationError  # noqa: E402
from specvla_ros.launching import _parameter_file  # noqa: E402
from specvla_ros.nodes.bridge_parameters import PARAMETERS as BRIDGE  # noqa: E402
from specvla_ros.nodes.parameters import ParameterSpec, declare  # noqa: E402
from specvla_ros.nodes.policy_parameters import PARAMETERS as POLICY  # noqa: E402
from specvla_ros.nodes.replay_node import PARAMETERS as REPLAY  # noqa: E402

LAUNCH = Path(__file__).parents[1] / "launch"
FILES: dict[str, tuple[tuple[ParameterSpec, ...], dict[str, str]]] = {
    "policy.launch.py": (POLICY, {"policy_node": "specvla"}),
    "sim.launch.py": (POLICY + BRIDGE, {"policy_node": "specvla", "libero_bridge": "libero_bridge"}),
    "replay.launch.py": (
        REPLAY + tuple(spec for spec in BRIDGE if not spec.name.startswith("bag")),
        {"replay_node": "replay", "libero_bridge": "libero_bridge"},
    ),
}


def module(file: str) -> Any:
    spec = importlib.util.spec_from_file_location(file.split(".")[0], LAUNCH / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def description(file: str) -> LaunchDescription:
    return module(file).generate_launch_description()


def nodes_of(file: str, **arguments: str) -> list[Node]:
    """The node actions of a launch file with these arguments and the defaults of all others."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    nodes: list[Node] = []
    for action in description(file).entities:
        if isinstance(action, DeclareLaunchArgument):
            action.visit(context)
        elif isinstance(action, OpaqueFunction):
            nodes += action.execute(context) or []
    return nodes


@pytest.mark.parametrize("file", FILES)
def test_every_parameter_is_a_described_argument(file: str) -> None:
    arguments = {argument.name: argument for argument in description(file).get_launch_arguments()}
    assert {spec.name for spec in FILES[file][0]} <= set(arguments)
    assert all(len(argument.description) > 10 for argument in arguments.values())
    assert all(argument.default_value is not None for argument in arguments.values()), "none has to be given"


@pytest.mark.parametrize("file", FILES)
def test_each_launch_file_starts_its_nodes_from_this_package(file: str) -> None:
    nodes = nodes_of(file)
    assert {node.node_package for node in nodes} == {"specvla_ros"}
    assert sorted(node.node_executable for node in nodes) == sorted(FILES[file][1])


@pytest.mark.parametrize(
    ("file", "argument"),
    [
        ("policy.launch.py", "policy_config"),
        ("sim.launch.py", "policy_config"),
        ("sim.launch.py", "libero_config"),
        ("replay.launch.py", "replay_config"),
    ],
)
def test_a_parameter_file_that_is_not_there_starts_no_node_with_other_parameters(file: str, argument: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{argument}:=/nowhere.yaml is no file"):
        nodes_of(file, **{argument: "/nowhere.yaml"})


@pytest.mark.parametrize("argument", ["dry_run:=0", "use_sim_time:=maybe", "threshold:=3.5", "workspace_low:=[]"])
def test_an_argument_that_does_not_fit_its_parameter_is_refused(argument: str) -> None:
    name, value = argument.split(":=")
    with pytest.raises(ConfigurationError, match="does not fit; expected a value like"):
        nodes_of("policy.launch.py", **{name: value})


def test_a_parameter_file_for_other_nodes_starts_none_with_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("policy_node: {ros__parameters: {workspace_low: [0.2, -0.4, 0.0]}}")
    with pytest.raises(ConfigurationError, match="holds nothing for this node; expected specvla: or /"):
        nodes_of("policy.launch.py", policy_config=str(file))


def test_arguments_count_as_typed_in_whatever_namespace_and_over_the_users_own_file(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("/**: {ros__parameters: {threshold: 1}}\nleft: {specvla: {ros__parameters: {threshold: 2}}}")
    given = _parameter_file("specvla", {"threshold": 3, "checkpoint": "0801", "unnorm_key": "a: 'é', \"y\""})
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(own), "--params-file", given], context=context)
    node = rclpy.create_node("specvla", namespace="left", context=context)
    values = declare(node, POLICY)
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert (values["threshold"], values["checkpoint"], values["unnorm_key"]) == (3, "0801", "a: 'é', \"y\"")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("/**: {ros__parameters: {mode: realtime}}", "realtime"),
        ("specvla: {ros__parameters: {threshold: 3}}\nlibero_bridge: {ros__parameters: {mode: realtime}}", "realtime"),
        ("sim: {libero_bridge: {ros__parameters: {mode: realtime}}}", "realtime"),
        ("/**/libero_bridge: {ros__parameters: {task: 3}}", "lockstep"),
    ],
)
def test_the_clock_is_simulated_if_the_users_own_file_has_the_bridge_run_in_real_time(
    tmp_path: Path, content: str, expected: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(content)
    context = LaunchContext()
    context.launch_configurations.update({"mode": "", "libero_config": str(file)})
    assert module("sim.launch.py").mode(context) == expected


@pytest.mark.parametrize(("file", "dry_run"), [("policy.launch.py", "true"), ("sim.launch.py", "false")])
def test_a_robot_moves_only_once_the_user_says_so_and_a_simulation_at_once(file: str, dry_run: str) -> None:
    arguments = {argument.name: argument for argument in description(file).get_launch_arguments()}
    assert arguments["dry_run"].default_value[0].text == dry_run


def test_the_users_own_file_says_whose_clock_a_robot_goes_by() -> None:
    arguments = {argument.name: argument for argument in description("policy.launch.py").get_launch_arguments()}
    assert arguments["use_sim_time"].default_value[0].text == ""


def test_an_arms_launch_file_wires_the_policy_to_servo_and_tells_servo_to_take_twists() -> None:
    actions = description("panda_servo.launch.py").entities
    arguments = {action.name: action for action in actions if isinstance(action, DeclareLaunchArgument)}
    assert arguments["twist_topic"].default_value[0].text == "/servo_node/delta_twist_cmds"
    assert Path(arguments["policy_config"].default_value[0].text).is_file()
    (included,) = (action for action in actions if isinstance(action, IncludeLaunchDescription))
    names = {argument.name for argument in description("policy.launch.py").get_launch_arguments()}
    assert {name for name, _ in included.launch_arguments} == arguments.keys() <= names
    assert any(isinstance(action, ExecuteProcess) for action in actions)


@pytest.mark.parametrize("file", FILES)
def test_fast_dds_gets_room_for_images_unless_the_user_has_profiles(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    assert any(isinstance(action, SetEnvironmentVariable) for action in description(file).entities)
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/own/profiles.xml")
    assert not any(isinstance(action, SetEnvironmentVariable) for action in description(file).entities)


@pytest.fixture
def launched(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """The parameter's launch file with the parameter's arguments."""
    with launching(*request.param) as child:
        yield child


@contextmanager
def launching(file: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`ros2 launch` of a file with arguments, in a process of its own."""
    code = (
        "import sys\n"
        "from launch import LaunchDescription, LaunchService\n"
        "from launch.actions import IncludeLaunchDescription\n"
        "from launch.launch_description_sources import PythonLaunchDescriptionSource\n"
        "arguments = [tuple(pair.split(':=')) for pair in sys.argv[2:]]\n"
        "source = PythonLaunchDescriptionSource(sys.argv[1])\n"
        "service = LaunchService()\n"
        "included = IncludeLaunchDescription(source, launch_arguments=arguments)\n"
        "service.include_launch_description(LaunchDescription([included]))\n"
        "sys.exit(service.run())\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(LAUNCH / file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            child.communicate(timeout=PATIENCE)


@pytest.mark.skipif(not installed(), reason=NOT_INSTALLED)
@pytest.mark.parametrize(
    "launched",
    [
        (
            "policy.launch.py",
            "policy:=fake",
            "threshold:=3",
            "thresholds:=[-1, 7, -1, -1, -1, -1, 0]",
            "twist_frame:=0801",
            "workspace_low:=[-1, -0.5, 0.02]",
            "speed_limits:=[1, 1, 1, 1, 1, 1]",
            "dry_run:=false",
            "image_topic:=camera/image_raw",
        )
    ],
    indirect=True,
)
def test_a_launched_policy_obeys_its_arguments_and_ends_with_ctrl_c(launched: subprocess.Popen[str]) -> None:
    with running_peer() as peer:
        images: Any = peer.create_publisher(peer.images.msg_type, "camera/image_raw", 1)
        peer.images = images
        wait_until(lambda: images.get_subscription_count() == 1)
        peer.instruct()
        command = peer.command_for(peer.send(100))
        assert list(command.thresholds) == [3, 7, 3, 3, 3, 3, 0]
        wait_until(lambda: bool(peer.received["twist"]))
        assert peer.received["twist"][0].header.frame_id == "0801", "text that looks like a number stays text"
        launched.send_signal(signal.SIGINT)
        output, _ = launched.communicate(timeout=PATIENCE)
    assert "process has finished cleanly" in output and "Traceback" not in output, output


@pytest.mark.skipif(not installed(), reason=NOT_INSTALLED)
@pytest.mark.parametrize(
    "launched",
    [("policy.launch.py", "policy:=fake", "dry_run:=false", "respawn:=true", "enabled_at_start:=false")],
    indirect=True,
)
def test_a_killed_policy_is_started_again_and_waits_to_be_enabled(launched: subprocess.Popen[str]) -> None:
    with running_peer() as peer:
        peer.begin()
        assert peer.enable(True).success
        peer.moving()
        assert launched.stdout is not None
        starts = (line for line in launched.stdout if "process started with pid" in line)
        os.kill(int(next(starts).split("[")[-1].rstrip("]\n")), signal.SIGKILL)
        assert next(starts)
        peer.received["diagnostics"].clear()
        peer.diagnosis("not enabled", peer.send)
        assert peer.is_told_nothing(peer.send), "though the instruction is latched"


@pytest.mark.skipif(not installed(), reason=NOT_INSTALLED)
@pytest.mark.parametrize(
    "launched",
    [("policy.launch.py", "policy:=fake", "image_transport:=compressed", "image_topic:=camera/image_raw")],
    indirect=True,
)
@pytest.mark.usefixtures("launched")
def test_the_camera_topic_counts_for_compressed_images_too() -> None:
    with running_peer() as peer:
        wait_until(lambda: peer.count_subscribers("camera/image_raw/compressed") == 1)


@pytest.mark.skipif(not installed(), reason=NOT_INSTALLED)
def test_a_launched_simulation_ends_with_its_episode_and_its_bag_drives_a_launched_replay_to_the_same_state(
    tmp_path: Path,
) -> None:
    pytest.importorskip("libero", reason="LIBERO is not installed: make venv brings it")
    scene = ("suite:=libero_object", "task:=3", "max_steps:=6", f"bag:={tmp_path / 'bag'}")
    states = []
    for file, more in (("sim.launch.py", ("policy:=fake",)), ("replay.launch.py", ())):
        result = tmp_path / f"{file}.json"
        with launching(file, *scene, *more, f"result:={result}") as child:
            output, _ = child.communicate(timeout=4 * PATIENCE)
        assert child.returncode == 0 and "Traceback" not in output, output
        figures = json.loads(result.read_text())
        assert figures["steps"] == 6
        states.append(figures["state_sha256"])
    assert states[0] == states[1]
