"""The policy node as a process: how it ends, and what it says when time stands still."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
import yaml
from geometry_msgs.msg import PoseStamped, TwistStamped
from peer import PATIENCE, policy_process, running_peer, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import String
from test_parameters import CONFIG

from specvla_ros.nodes import qos


def test_diagnostics_come_once_a_second_although_simulated_time_stands_still() -> None:
    with running_peer() as peer, policy_process("FakePolicy()", "-p", "use_sim_time:=true"):
        wait_until(lambda: len(peer.received["diagnostics"]) >= 2)


def test_a_policy_fault_does_not_silence_the_warning_about_another_thing() -> None:
    with running_peer() as peer, policy_process("FakePolicy(fault='raise')") as child:
        peer.wait_for_listener()
        peer.diagnosis("no instruction", peer.send)
        peer.instruct()
        peer.diagnosis("was told to fail", peer.send)
        peer.diagnosis("stale image", lambda: peer.send(age=5.0))
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=PATIENCE)
    for sentence in ("no instruction", "was told to fail", "stale image"):
        assert sentence in output


def test_a_node_in_a_namespace_calls_itself_and_its_camera_by_their_full_names() -> None:
    def names() -> set[str]:
        return {array.status[0].name for array in peer.received["diagnostics"]}

    arguments = ("-r", "__ns:=/left", "-r", "image:=camera/image_raw", "-p", "dry_run:=true")
    with running_peer() as peer, policy_process("FakePolicy()", *arguments) as child:
        peer.diagnosis("no image has come yet on the topic /left/camera/image_raw")
        wait_until(lambda: names() == {"left/specvla"}, lambda: f"one name in {names()}")
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=PATIENCE)
    assert "ros2 param set /left/specvla dry_run false" in output, "another arm's node may be /specvla"


def test_ctrl_c_twice_ends_the_node_as_cleanly_as_once() -> None:
    with running_peer() as peer, policy_process("FakePolicy(delay=0.5)") as child:
        peer.begin()
        peer.command_for(peer.send())
        peer.send()
        time.sleep(0.1)  # the action of this image is in work
        child.send_signal(signal.SIGINT)
        time.sleep(0.15)  # as a terminal and ros2 launch do
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0 and "Traceback" not in output, output


def test_a_node_that_starts_by_itself_says_in_the_log_that_it_still_loads() -> None:
    with running_peer() as peer, policy_process("(__import__('time').sleep(6.5), FakePolicy())[1]") as child:
        peer.wait_for_listener()
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=PATIENCE)
    assert output.count("still loading the policy, for 5 s now") == 1, output


@pytest.mark.parametrize(("profile", "ways"), [(qos.COMMAND, 1), (qos.LATCHED, 2)], ids=["volatile", "latched"])
def test_an_instruction_is_heard_from_every_publisher_and_begins_one_episode(profile: Any, ways: int) -> None:
    with running_peer() as peer, policy_process() as child:
        peer.wait_for_listener()
        publisher = peer.create_publisher(String, "instruction", profile)
        wait_until(lambda: publisher.get_subscription_count() == ways)
        for text in ("pick up the bowl", "open the drawer", "open the drawer"):
            publisher.publish(String(data=text))
            peer.moving()
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=PATIENCE)
    assert output.count("instruction: '") == 3 and output.count("instruction: 'open the drawer'") == 2, output
    assert "incompatible QoS" not in output, "the subscription that does not hear it is no trouble"


def test_a_reliable_subscription_hears_reliable_cameras_only() -> None:
    with running_peer() as peer, policy_process("FakePolicy()", "-p", "image_reliability:=reliable"):
        wait_until(lambda: peer.count_subscribers("image") == 1)
        best_effort, peer.images = peer.images, peer.create_publisher(Image, "image", qos.RELIABLE_IMAGE)
        peer.begin()
        peer.moving()
        assert best_effort.get_subscription_count() == 0


def test_the_wiring_of_a_panda_gives_servo_twists_in_the_arms_frame() -> None:
    file = CONFIG / "panda_servo.yaml"
    limits = yaml.safe_load(file.read_text())["/**"]["ros__parameters"]
    wiring = {"delta_twist": "/servo_node/delta_twist_cmds", "gripper_position": "/panda_hand_controller/commands"}
    launch_file = (CONFIG.parent / "launch" / "panda_servo.launch.py").read_text()
    assert all(f'"{topic}"' in launch_file for topic in wiring.values()), "these are the launch file's remappings"
    remappings = [part for name, topic in wiring.items() for part in ("-r", f"{name}:={topic}")]
    twists: list[TwistStamped] = []
    with running_peer() as peer:
        peer.create_subscription(TwistStamped, wiring["delta_twist"], twists.append, qos.COMMAND)
        arguments = ("--params-file", str(file), "-p", "policy:=fake", *remappings)
        with policy_process("load_from_parameters(values)", *arguments):
            peer.begin()
            wait_until(lambda: peer.count_publishers(wiring["delta_twist"]) == 1)
            peer.diagnosis("not enabled", peer.send)
            assert peer.enable(True).success
            peer.diagnosis("no motion: no ee_pose has come", peer.send)
            assert all(twist.twist.linear.x == 0.0 for twist in twists)
            hand = PoseStamped()
            hand.header.frame_id, hand.header.stamp = "panda_link0", peer.get_clock().now().to_msg()
            hand.pose.position.x, hand.pose.position.z = 0.4, 0.3
            peer.poses.publish(hand)
            peer.moving()
            wait_until(lambda: any(twist.twist.linear.x > 0.0 for twist in twists))
        assert not peer.received["twist"], "nothing on the topic's own name"
    assert {twist.header.frame_id for twist in twists} == {"panda_link0"}
    fastest = max(twist.twist.linear.x for twist in twists)
    assert fastest == pytest.approx(limits["speed_limits"][0] * limits["linear_scale"])
