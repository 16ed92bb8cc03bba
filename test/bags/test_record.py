"""Episodes recorded as they go over the topics: by the bridge alone, and by the command with a real scene."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from peer import PATIENCE, policy_process, process

from specvla_ros.bags.recording import Recording, Topics
from specvla_ros.bags.replay_check import replay_check
from specvla_ros.nodes.bag import BagReader

NODES = Path(__file__).parents[1] / "nodes"
BRIDGE = f"""
import sys
sys.path.insert(0, {str(NODES)!r})
from fake_environment import FakeEnvironment
from specvla_ros.nodes.libero_bridge import main
main(sys.argv, create=FakeEnvironment)
"""
REPLAY = "import sys; from specvla_ros.nodes.replay_node import main; main(sys.argv)"
COMPRESSED = ("-p", "image_transport:=compressed")


def bridge(*parameters: str) -> None:
    command = [sys.executable, "-c", BRIDGE, "--ros-args", *COMPRESSED, "-p", "max_steps:=8", *parameters]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_compressed_images_are_recorded_as_the_policy_saw_them_and_drive_the_scene_again(tmp_path: Path) -> None:
    bag, first, second = tmp_path / "bag", tmp_path / "first.json", tmp_path / "second.json"
    with policy_process("FakePolicy()", *COMPRESSED):
        bridge("-p", "jpeg_quality:=50", "-p", f"bag:={bag}", "-p", f"result:={first}")
    with BagReader(bag) as reader:
        recording = Recording(reader, Topics())
        assert recording.is_compressed and len(recording.commands()) == 8
    assert replay_check(bag, Topics(), {"policy": "fake"}, fast=True)["differences"] == []
    with process(REPLAY, "--ros-args", "-p", f"bag:={bag}") as replay:
        bridge("-p", f"result:={second}")
        replay.communicate(timeout=PATIENCE)
        assert replay.returncode == 0
    states = [json.loads(file.read_text())["state_sha256"] for file in (first, second)]
    assert states[0] == states[1]


def test_the_command_records_a_real_scene_and_says_what_with(tmp_path: Path) -> None:
    pytest.importorskip("libero", reason="LIBERO is not installed: make venv brings it")
    bag = tmp_path / "bag"
    command = [sys.executable, "-m", "specvla_ros.cli", "record", str(bag), "--max-steps", "3", "--jpeg", "80"]
    command += ["--storage", "sqlite3", "--output", str(tmp_path / "run"), "--json", str(tmp_path / "figures.json")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert list(bag.glob("*.db3")) and "bag:" in result.stdout
    origin, figures = (
        json.loads((bag / "recording.json").read_text()),
        json.loads((tmp_path / "figures.json").read_text()),
    )
    assert len(origin["weights_sha256"]) == 64 and figures["weights_sha256"] == origin["weights_sha256"]
    assert figures["steps"] == 3 and figures["bag_bytes"] < 100_000
    with BagReader(bag) as reader:
        assert len(Recording(reader, Topics()).commands()) == 3
        assert sum(1 for _ in reader.messages("/decode_stats")) >= 3
