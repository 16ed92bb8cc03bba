"""The README's own commands, where the `ros2` command is installed: launch, param, lifecycle, topic, action."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml
from peer import PATIENCE, Peer, running_peer, sending

ROS2 = shutil.which("ros2")
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
pytestmark = pytest.mark.skipif(
    ROS2 is None, reason="the ros2 command is in no package registry; it comes with a ROS 2 installation"
)


def ros2(*arguments: str) -> str:
    """What a command prints; it must succeed."""
    assert ROS2 is not None
    deadline = time.monotonic() + PATIENCE
    while True:
        result = subprocess.run([ROS2, *arguments], capture_output=True, text=True, timeout=2 * PATIENCE)
        if result.returncode == 0:
            return result.stdout
        # Some commands look once at who is there, and their process may not have discovered the node yet.
        is_early = "Node not found" in result.stderr and time.monotonic() < deadline
        assert is_early, result.stdout + result.stderr


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


@pytest.fixture(autouse=True)
def launched(peer: Peer) -> Iterator[subprocess.Popen[str]]:
    """`ros2 launch specvla_ros policy.launch.py` with a policy that needs no model."""
    assert ROS2 is not None
    command = [ROS2, "launch", "specvla_ros", "policy.launch.py", "policy:=fake", "dry_run:=false"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
    try:
        peer.wait_for_listener()
        yield child
    finally:
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=PATIENCE)
    assert "process has finished cleanly" in output, output


def test_the_threshold_is_set_while_the_arm_moves_and_a_dump_can_be_loaded_again(
    peer: Peer, tmp_path: os.PathLike[str]
) -> None:
    peer.instruct()
    peer.moving()
    assert "successful" in ros2("param", "set", "/specvla", "threshold", "3")
    assert list(peer.command_for(peer.send(20)).thresholds) == [3] * 6 + [0]
    dump = ros2("param", "dump", "/specvla")
    assert yaml.safe_load(dump)["/specvla"]["ros__parameters"]["threshold"] == 3
    assert ros2("lifecycle", "get", "/specvla").startswith("active")
    # What is read-only while configured can be set after a cleanup.
    for transition in ("deactivate", "cleanup"):
        ros2("lifecycle", "set", "/specvla", transition)
    file = os.path.join(tmp_path, "dump.yaml")
    with open(file, "w") as stream:
        stream.write(dump.replace("/specvla:", "/**:").replace("threshold: 3", "threshold: 5"))
    loaded = ros2("param", "load", "/specvla", file)
    assert "threshold" in loaded and "failed" not in loaded.lower()
    assert "5" in ros2("param", "get", "/specvla", "threshold")


def test_a_goal_is_sent_followed_and_ends_when_its_time_is_up(peer: Peer) -> None:
    assert "specvla_ros/action/FollowInstruction" in ros2("action", "list", "-t")
    goal = "{instruction: pick up the cup, time_limit: 1.0}"
    kind = "specvla_ros/action/FollowInstruction"
    with sending(peer):
        answer = ros2("action", "send_goal", "--feedback", "/specvla/follow_instruction", kind, goal)
    assert "SUCCEEDED" in answer and "its 1 s are up" in answer and "accept_length: 3.5" in answer


def test_a_plain_topic_pub_is_heard_as_an_instruction_and_topic_hz_sees_the_commands(peer: Peer) -> None:
    assert ROS2 is not None
    ros2("topic", "pub", "--once", "/instruction", "std_msgs/msg/String", "{data: pick up the cup}")
    with sending(peer):
        peer.moving()
        rate = subprocess.Popen(
            [ROS2, "topic", "hz", "/ee_command"], stdout=subprocess.PIPE, text=True, env={**os.environ, **UNBUFFERED}
        )
        try:
            assert rate.stdout is not None and any("average rate" in line for line in rate.stdout)
        finally:
            rate.kill()
            rate.wait()
