"""Bags replayed to the policy node as a process, over real DDS, and what is told of a token that is not as recorded."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from bag_files import write_bag
from diagnostic_msgs.msg import DiagnosticStatus
from rich.console import Console
from std_msgs.msg import String

from specvla_ros.bags import player
from specvla_ros.bags.origin import write_origin
from specvla_ros.bags.recording import Recording, Topics
from specvla_ros.bags.replay_check import print_check, replay_check
from specvla_ros.errors import BagError, CheckpointError, SimulationError
from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes.bag import BagReader, BagWriter
from specvla_ros.nodes.qos import LATCHED

FAKE = {"policy": "fake"}
DEFAULT = Topics()


def check(
    bag: Path, fast: bool = True, policy: dict[str, Any] | None = None, topics: Topics = DEFAULT
) -> dict[str, Any]:
    return replay_check(bag, topics, policy or FAKE, fast)


def printed(report: dict[str, Any]) -> str:
    text = io.StringIO()
    print_check(report, Console(file=text, width=200))
    return text.getvalue()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "compressed"])
def test_a_node_that_decodes_as_before_gives_every_recorded_token(
    tmp_path: Path, compressed: bool, storage: str
) -> None:
    report = check(write_bag(tmp_path / "bag", compressed=compressed, storage=storage))
    assert report["frames_compared"] == report["frames_recorded"] == 5 and report["differences"] == []
    assert "5 of 5 recorded actions compared, 35 tokens: all as recorded" in printed(report)


def test_a_bag_of_an_action_goal_holds_no_instruction_and_is_given_one(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", instructions=())
    with pytest.raises(BagError, match="has no topic /instruction"):
        check(bag)
    report = replay_check(bag, DEFAULT, FAKE, True, "pick up the bowl")
    assert report["frames_compared"] == 5 and report["differences"] == []


def test_a_changed_token_is_found_and_named(tmp_path: Path) -> None:
    def change(index: int, command: EndEffectorCommand) -> None:
        if index == 3:
            command.tokens[2] -= 4

    report = check(write_bag(tmp_path / "bag", change=change))
    (difference,) = report["differences"]
    recorded = difference["recorded"]
    assert difference == {
        "frame": 3,
        "position": 2,
        "dimension": "z",
        "recorded": recorded,
        "replayed": recorded + 4,
        "bins": 4,
    }
    assert "1 differ, in 1 frames" in printed(report) and "z" in printed(report)


def test_a_repetition_stands_for_a_command_that_was_lost_and_a_stop_for_none(tmp_path: Path) -> None:
    def lose(index: int, command: EndEffectorCommand) -> None:
        command.held = index == 1
        if index == 2:
            forget_tokens(index, command)

    report = check(write_bag(tmp_path / "bag", change=lose))
    assert report["frames_compared"] == report["frames_recorded"] == 4 and report["differences"] == []


def test_the_bags_pace_is_kept(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", frames=5, period=0.5)
    started = time.monotonic()
    report = check(bag, fast=False)
    assert time.monotonic() - started > 2.0, "five images half a second apart"
    # Images go out best effort, so one may be lost; what is answered must be as recorded.
    assert report["frames_compared"] >= 3 and report["differences"] == []


def test_the_last_image_of_an_episode_is_answered_before_the_next_instruction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "LAST", 0.0)
    bag = write_bag(tmp_path / "bag", frames=2, period=0.5, instructions=[(0, "pick up"), (1, "put down")])
    rclpy.init()
    node, events = player.Player(False, lambda: None), list[tuple[str, float]]()
    monkeypatch.setattr(node, "_instruct", lambda frame: events.append((frame.instruction, time.monotonic())))
    monkeypatch.setattr(node, "_show", lambda frame: events.append(("image", time.monotonic())))
    try:
        with BagReader(bag) as reader:
            node.play(Recording(reader, DEFAULT).frames())
    finally:
        node.destroy_node()
        rclpy.shutdown()
    assert [what for what, _ in events] == ["pick up", "image", "put down", "image"]
    assert events[2][1] - events[1][1] > 0.4, "half a second as recorded"


@pytest.fixture
def waiting_player(monkeypatch: pytest.MonkeyPatch) -> Iterator[player.Player]:
    """Of whose policy node nothing has come yet."""
    monkeypatch.setattr(player, "DISCOVERY", 0.5)
    monkeypatch.setattr(player, "LOADING", 0.6)
    rclpy.init()
    waiting = player.Player(False, lambda: None)
    yield waiting
    waiting.destroy_node()
    rclpy.shutdown()


def test_a_policy_node_that_is_never_found_is_told_with_what_to_check(waiting_player: player.Player) -> None:
    screen = io.StringIO()
    with pytest.raises(
        BagError, match=r"not found over DDS within 0\.5 s; check the loopback .* ROS_DOMAIN_ID \(here "
    ):
        waiting_player.wait_for_policy(Console(file=screen))
    assert "waiting for the policy node 0:00:00" in screen.getvalue()


def test_a_policy_node_that_is_found_may_take_its_time_to_load(waiting_player: player.Player) -> None:
    node, screen = rclpy.create_node("specvla", namespace=player.NAMESPACE), io.StringIO()
    node.create_publisher(DiagnosticStatus, "~/status", LATCHED).publish(DiagnosticStatus(message="loading the policy"))
    with pytest.raises(BagError, match=r"no policy node was ready within 0\.6 s; it says: loading the policy"):
        waiting_player.wait_for_policy(Console(file=screen))
    assert "waiting for the policy node to load its policy" in screen.getvalue()
    node.destroy_node()


def test_what_was_recorded_with_other_weights_is_said_beside_the_differences(tmp_path: Path) -> None:
    def change(index: int, command: EndEffectorCommand) -> None:
        command.tokens[0] += 1

    bag = write_bag(tmp_path / "bag", frames=2, change=change)
    write_origin(bag, {"weights_sha256": "those of another model"})
    assert "recorded with weights_sha256 those of another model, replayed with" in printed(check(bag))


def test_the_recorded_thresholds_are_replayed(tmp_path: Path) -> None:
    def relax(index: int, command: EndEffectorCommand) -> None:
        command.thresholds = [9] * 6 + [0]

    report = check(write_bag(tmp_path / "bag", change=relax))
    assert report["thresholds"] == [9] * 6 + [0]


def forget_tokens(index: int, command: EndEffectorCommand) -> None:
    command.tokens = [0] * 7


def change_thresholds(index: int, command: EndEffectorCommand) -> None:
    command.thresholds = [index] * 6 + [0]


def lose_stamp(index: int, command: EndEffectorCommand) -> None:
    command.header.stamp.sec += 1000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (forget_tokens, "/ee_command holds no command with tokens"),
        (change_thresholds, "thresholds changed during the recording"),
        (lose_stamp, "none of the 5 commands in .* bears the stamp of one of its images"),
    ],
)
def test_a_bag_that_cannot_be_checked_says_why(
    tmp_path: Path, change: Callable[[int, EndEffectorCommand], None], sentence: str
) -> None:
    with pytest.raises(BagError, match=sentence):
        check(write_bag(tmp_path / "bag", change=change))


def test_a_bag_without_images_is_named_with_what_it_holds(tmp_path: Path) -> None:
    writer = BagWriter(tmp_path / "bag", "mcap")
    writer.write("/instruction", 1, String(data="pick up the bowl"))
    writer.close()
    with pytest.raises(
        BagError, match=r"has no topic /image of type .*; it holds /instruction \(std_msgs/msg/String\)"
    ):
        check(tmp_path / "bag")


def test_a_topic_of_another_type_is_no_camera(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="has no topic /instruction of type sensor_msgs/msg/Image or"):
        check(write_bag(tmp_path / "bag"), topics=Topics(image="/instruction"))


def test_a_policy_that_cannot_be_loaded_ends_the_check_with_its_sentence(tmp_path: Path) -> None:
    with pytest.raises((BagError, SimulationError), match=r"the policy was not loaded.*cuda:99"):
        check(write_bag(tmp_path / "bag"), policy={"device": "cuda:99"})
    with pytest.raises(CheckpointError, match="/nowhere is not a directory"):
        check(tmp_path / "bag", policy={"checkpoint": "/nowhere"})


def test_the_command_ends_with_1_and_a_table_when_the_model_is_another_however_large_the_images(
    tmp_path: Path,
) -> None:
    bag = write_bag(tmp_path / "bag", frames=2, size=640)  # more than fits into DDS's default shared memory
    command = [sys.executable, "-m", "specvla_ros.cli", "replay-check", str(bag), "--fast", "--json", "-"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    differences = json.loads(result.stdout)["differences"]
    assert {row["frame"] for row in differences} == {0, 1}
    assert "not as recorded" in result.stderr and "Traceback" not in result.stderr
