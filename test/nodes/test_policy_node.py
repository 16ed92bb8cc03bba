"""The policy node as a process of its own, over real DDS."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from peer import PATIENCE, Peer, policy_process, running_peer, wait_until
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker

from specvla_ros.nodes.conversion import rgb_to_image
from specvla_ros.nodes.policy_parameters import PARAMETERS


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


@pytest.fixture
def policy(peer: Peer) -> Iterator[subprocess.Popen[str]]:
    """A node with the fake policy that has seen an instruction."""
    with policy_process() as child:
        peer.begin()
        yield child


@pytest.mark.usefixtures("policy")
def test_an_image_becomes_a_command_a_twist_and_statistics_with_its_stamp(peer: Peer) -> None:
    captions: list[Marker] = []
    peer.create_subscription(Marker, "specvla/caption", captions.append, 10)
    wait_until(lambda: peer.count_publishers("specvla/caption") == 1)
    image = peer.send(200)
    command = peer.command_for(image)
    assert command.header.stamp == image.header.stamp
    assert np.isfinite([command.delta_position.x, command.delta_rotation.z, command.gripper]).all()
    assert len(command.tokens) == 7 and command.sequence >= 1
    wait_until(lambda: bool(peer.received["stats"] and peer.received["twist"] and captions))
    stats, twist = peer.received["stats"][0], peer.received["twist"][0]
    assert stats.header.stamp == image.header.stamp
    assert list(stats.accepted) == [5] and stats.rounds == 1 and stats.target_forwards == 2
    assert stats.accept_length == 3.5
    assert 0 <= stats.queue_ms <= stats.total_ms
    (caption,) = captions
    assert caption.text.startswith("3.5 tokens per forward, ") and caption.text.endswith("\nthreshold 0, gripper 0")
    assert caption.header.frame_id == "base_link" and caption.lifetime.sec == 1, "it goes when actions cease"
    assert twist.header.frame_id == "base_link" and twist.twist.linear.x == pytest.approx(command.delta_position.x)


@pytest.mark.usefixtures("policy")
def test_a_threshold_set_from_another_process_counts_from_the_next_action(peer: Peer) -> None:
    assert list(peer.command_for(peer.send(10)).thresholds) == [0] * 7
    assert peer.set_parameters(threshold=3)[0].successful
    assert list(peer.command_for(peer.send(20)).thresholds) == [3] * 6 + [0], "the gripper stays exact"
    assert peer.set_parameters(thresholds=[1, 2, -1, 4, 5, 6, 7])[0].successful
    assert list(peer.command_for(peer.send(30)).thresholds) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.usefixtures("policy")
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"threshold": 256}, "out of range"),
        ({"threshold": -1}, "out of range"),
        ({"threshold": "three"}, "type"),
        ({"thresholds": [1, 2, 3]}, "expected one for each of x, y, z, roll, pitch, yaw, gripper"),
        ({"thresholds": [300] * 7}, "out of range"),
        ({"tree_nodes": 20}, "read-only"),
    ],
)
def test_a_bad_or_late_parameter_is_refused_with_the_reason(peer: Peer, values: dict, reason: str) -> None:
    result = peer.set_parameters(**values)[0]
    assert not result.successful and reason in result.reason
    assert list(peer.command_for(peer.send(10)).thresholds) == [0] * 7


@pytest.mark.usefixtures("policy")
def test_all_parameters_as_they_are_may_be_set_again_while_the_arm_moves(peer: Peer) -> None:
    peer.moving()
    results = peer.set_parameters(**{spec.name: spec.default for spec in PARAMETERS})
    assert [result.reason for result in results if not result.successful] == []


@pytest.mark.usefixtures("policy")
def test_an_unusable_image_is_dropped_by_name_and_the_node_lives_on(peer: Peer) -> None:
    depth = Image(encoding="32FC1", width=4, height=4, step=16, data=[0] * 64)
    assert "image '32FC1' of 4 x 4" in peer.diagnosis("32FC1", lambda: peer.send(message=depth))
    cut = rgb_to_image(np.zeros((32, 48, 3), np.uint8))
    cut.data = cut.data[:100]
    assert "100 bytes of data, expected 4608" in peer.diagnosis("100 bytes", lambda: peer.send(message=cut))
    assert not peer.received["command"]
    assert peer.command_for(peer.send(50))


@pytest.mark.usefixtures("policy")
def test_a_stale_image_gives_no_command(peer: Peer) -> None:
    assert "max_image_age is 1.0 s" in peer.diagnosis("stale image", lambda: peer.send(10, age=5.0))
    peer.diagnosis("stamp is -", lambda: peer.send(10, age=-5.0))
    fresh = peer.send(20)
    peer.command_for(fresh)
    assert all(command.header.stamp == fresh.header.stamp for command in peer.received["command"])


def test_without_an_instruction_nothing_is_published_and_diagnostics_say_so(peer: Peer) -> None:
    with policy_process():
        peer.wait_for_listener()
        peer.diagnosis("no instruction", peer.send)
        peer.instruct("   ")
        for _ in range(10):
            peer.send()
            time.sleep(0.05)
        assert not peer.received["command"] and not peer.received["twist"]


@pytest.mark.parametrize(("fault", "sentence"), [("nan", "not finite"), ("raise", "was told to fail")])
def test_a_policy_that_fails_moves_nothing_and_is_reported(peer: Peer, fault: str, sentence: str) -> None:
    with policy_process(f"FakePolicy(fault={fault!r})") as child:
        peer.begin()
        peer.diagnosis(sentence, peer.send)
        assert not peer.received["command"] and not peer.received["twist"]
        assert child.poll() is None


def test_a_policy_that_cannot_be_loaded_leaves_the_node_alive_with_the_reason(peer: Peer) -> None:
    with policy_process("load_from_parameters(values)", "-p", "checkpoint:=/nowhere/openvla") as child:
        assert "/nowhere/openvla is not a directory" in peer.diagnosis("not loaded")
        assert child.poll() is None


def test_the_newest_image_wins_under_a_slow_policy(peer: Peer) -> None:
    with policy_process("FakePolicy(delay=0.4)"):
        peer.begin()
        peer.command_for(peer.send(0))
        sent = []
        for brightness in range(10, 110, 10):
            sent.append(peer.send(brightness))
            time.sleep(0.02)
        peer.command_for(sent[-1])
        answered = [command.header.stamp for command in peer.received["command"]]
        assert sum(image.header.stamp in answered for image in sent) <= 3, "those in between were skipped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_node_cleanly(peer: Peer, number: signal.Signals) -> None:
    with policy_process("FakePolicy(delay=0.3)") as child:
        peer.begin()
        peer.send()
        time.sleep(0.1)
        child.send_signal(number)
        output, _ = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, output
        assert "Traceback" not in output


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("image_transport: zip", "image_transport is 'zip'; expected one of raw, compressed"),
        ("hold_time: 1", "'1' of type 'INTEGER', expecting type 'DOUBLE': hold_time; expected a value like 0.5"),
        ("thresholds: []", "thresholds has no value; expected one like [-1, -1, -1, -1, -1, -1, 0]"),
        ("workspace_low: [0, -0.4, 0.02]", "Sequence should be of same type."),
    ],
)
def test_a_parameter_file_that_cannot_be_meant_ends_with_one_sentence(
    tmp_path: Path, content: str, sentence: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"/**:\n  ros__parameters:\n    {content}\n")
    with policy_process("FakePolicy()", "--params-file", str(file)) as child:
        output, _ = child.communicate(timeout=PATIENCE)
        assert child.returncode == 1
        assert sentence in output and "Traceback" not in output
