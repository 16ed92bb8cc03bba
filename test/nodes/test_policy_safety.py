"""What the arm is told when something is wrong: the policy node as a process, over real DDS."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy.subscription
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from peer import LONG_HOLD, PATIENCE, Peer, is_moving, policy_process, process, running_peer, wait_until
from rclpy.qos import QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from specvla_ros.nodes import qos
from specvla_ros.nodes.conversion import rgb_to_compressed, rgb_to_image

TELLS_PUBLISHERS = "publisher_gid" in getattr(getattr(rclpy.subscription, "MessageInfo", None), "__annotations__", {})
FAULTY_POLICY = """
import sys
import numpy as np
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.nodes.policy_node import main

class FaultyPolicy(FakePolicy):
    '''A black image makes it fail, a dark one makes it answer with NaN.'''

    def act(self, image, instruction):
        self._fault = {0: "raise", 10: "nan"}.get(int(image.mean()), "")
        return super().act(image, instruction)

main(sys.argv, load=lambda values: FaultyPolicy())
"""


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


def test_what_is_decoded_from_before_a_disabling_moves_nothing_after_the_enabling(peer: Peer) -> None:
    with policy_process("FakePolicy(delay=0.2)", *LONG_HOLD):
        peer.begin()
        peer.moving()
        peer.wait_until_answered()
        assert peer.enabling.wait_for_service(PATIENCE)
        for _ in ("its action is in work", "it waits"):
            peer.send(200)
            time.sleep(0.05)
        calls = [peer.enabling.call_async(SetBool.Request(data=value)) for value in (False, True)]
        wait_until(lambda: all(call.done() for call in calls))
        peer.wait_for_rest()
        assert peer.is_told_nothing(), "until an image comes that shows the scene as it is now"
        peer.moving()


def test_the_last_command_is_repeated_then_comes_to_rest_once_and_then_nothing_is_said(peer: Peer) -> None:
    with policy_process("FakePolicy()", "-p", "hold_time:=1.0", "-p", "command_rate:=50.0"):
        peer.begin()
        first = peer.moving()
        assert not first.held and 0.0 <= first.age < 1.0
        stop = peer.wait_for_rest()
        assert peer.is_told_nothing()
        answers = [command for command in peer.received["command"] if command.header.stamp == stop.header.stamp]
    assert answers[-1] == stop and stop.held and stop.age > 1.0 and stop.gripper == first.gripper
    repeated = answers[1:-1]
    assert repeated and all(command.held and is_moving(command) and command.age <= 1.0 for command in repeated)
    ages = [command.age for command in answers]
    assert ages == sorted(ages)
    assert peer.received["twist"][-1].twist.linear.x == 0.0


def test_an_emergency_stop_acts_at_once_and_needs_its_release_and_an_enabling(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.begin()
        peer.moving()
        peer.estops.publish(Bool(data=True))
        peer.wait_for_rest()
        assert "emergency stop" in peer.status("emergency stop")
        assert peer.is_told_nothing(peer.send)
        refused = peer.enable(True)
        assert not refused.success and "emergency stop" in refused.message
        assert peer.received["status"][-1].level == DiagnosticStatus.ERROR, "whatever comes meanwhile"
        peer.estops.publish(Bool(data=False))
        peer.diagnosis("not enabled", peer.send)
        assert peer.is_told_nothing(peer.send), "a release alone moves nothing"
        assert peer.enable(True).success
        peer.moving()


@pytest.mark.parametrize("others", [0, 3])
def test_an_emergency_stop_that_was_pressed_before_the_node_started_counts(peer: Peer, others: int) -> None:
    peer.estops.publish(Bool(data=True))
    for other in [peer.create_publisher(Bool, "estop", qos.LATCHED) for _ in range(others)]:
        other.publish(Bool(data=False))
    with policy_process("(__import__('time').sleep(2.0), FakePolicy())[1]"):
        peer.begin()
        peer.diagnosis("~/enable", peer.send)
        assert not peer.received["command"]


@pytest.mark.parametrize(("profile", "subscriptions"), [(qos.COMMAND, 2), (qos.BEST_EFFORT, 1)])
def test_an_emergency_stop_from_a_publisher_that_latches_nothing_is_heard_too(
    peer: Peer, profile: QoSProfile, subscriptions: int
) -> None:
    button = peer.create_publisher(Bool, "estop", profile)
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.begin()
        wait_until(lambda: button.get_subscription_count() == subscriptions)
        peer.moving()
        button.publish(Bool(data=True))
        peer.wait_for_rest()
        assert "emergency stop" in peer.status("emergency stop")


@pytest.mark.skipif(not TELLS_PUBLISHERS, reason="this rclpy does not say who published a message")
def test_an_emergency_stop_is_not_released_by_another_publisher_while_its_own_is_there(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.begin()
        button = peer.create_publisher(Bool, "estop", qos.LATCHED)
        wait_until(lambda: button.get_subscription_count() == peer.estops.get_subscription_count() == 3)
        peer.moving()
        button.publish(Bool(data=True))
        peer.wait_for_rest()
        peer.estops.publish(Bool(data=False))
        peer.status("another emergency stop is still pressed")
        assert not peer.enable(True).success
        peer.destroy_publisher(button)
        wait_until(lambda: peer.count_publishers("estop") == 1)
        wait_until(lambda: release(peer), lambda: "the release of a button that is gone")
        peer.moving()


def release(peer: Peer) -> bool:
    """Publish false, and whether the node can be enabled then."""
    peer.estops.publish(Bool(data=False))
    return bool(peer.enable(True).success)


@pytest.mark.parametrize("topic", ["estop", "panel/stop"])
def test_where_an_emergency_stop_is_required_nothing_moves_before_it_has_spoken_nor_once_it_is_lost(
    peer: Peer, topic: str
) -> None:
    remapping = ["-r", f"estop:={topic}"] if topic != "estop" else []
    with policy_process("FakePolicy()", *LONG_HOLD, "-p", "estop_required:=true", *remapping):
        peer.begin()
        peer.diagnosis("nobody has published on estop", peer.send)
        assert not peer.received["command"]
        button = peer.create_publisher(Bool, topic, qos.LATCHED)
        button.publish(Bool(data=False))
        peer.moving()
        if topic == "estop":
            peer.destroy_publisher(peer.estops)
        peer.destroy_publisher(button)
        peer.wait_for_rest()
        assert peer.is_told_nothing(peer.send)
        again = peer.create_publisher(Bool, topic, qos.LATCHED)
        again.publish(Bool(data=False))
        peer.diagnosis("not enabled", peer.send)
        assert peer.is_told_nothing(peer.send), "its return alone moves nothing"
        assert peer.enable(True).success
        peer.moving()


def test_where_an_emergency_stop_is_required_one_of_two_that_is_lost_stops_the_arm_until_it_is_enabled(
    peer: Peer,
) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD, "-p", "estop_required:=true"):
        peer.begin()
        button = peer.create_publisher(Bool, "estop", qos.LATCHED)
        wait_until(lambda: button.get_subscription_count() == 3)
        peer.estops.publish(Bool(data=False))
        peer.moving()
        peer.destroy_publisher(button)
        peer.wait_for_rest()
        assert "1 of 2 still publish on estop" in peer.status("an emergency stop is lost")
        assert peer.is_told_nothing(peer.send)
        assert peer.enable(True).success
        peer.moving()


def test_a_process_that_is_not_enabled_at_its_start_waits_whatever_instruction_is_latched(peer: Peer) -> None:
    peer.instruct()
    with policy_process("FakePolicy()", *LONG_HOLD, "-p", "enabled_at_start:=false"):
        peer.wait_for_listener()
        assert "call the service ~/enable" in peer.diagnosis("not enabled", peer.send)
        assert not peer.received["command"]
        assert peer.enable(True).success
        peer.moving()


def test_a_camera_that_dies_is_told_on_the_status_topic_in_a_dry_run_too(peer: Peer) -> None:
    with policy_process("FakePolicy()", "-p", "dry_run:=true"):
        peer.begin()
        peer.moving()
        assert "no image for" in peer.status("no image for")


def test_an_action_that_comes_after_its_hold_time_moves_no_arm_and_says_what_to_change(peer: Peer) -> None:
    with policy_process("FakePolicy(delay=0.3)", "-p", "hold_time:=0.1"):
        peer.begin()
        assert is_moving(peer.command_for(peer.send(255)))
        assert "hold_time is 0.1 s; raise it" in peer.status("the arm does not move: the action came")
        assert all(twist.twist.linear.x == 0.0 for twist in peer.received["twist"])


def test_an_image_that_cannot_be_decoded_is_refused_by_a_policy_that_looks_ahead(peer: Peer) -> None:
    looks_ahead = "type('Ahead', (FakePolicy,), {'looks_ahead': True, 'look': lambda self, image: None})(delay=0.05)"
    arguments = (*LONG_HOLD, "-p", "image_transport:=compressed")
    header = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + (100_000).to_bytes(4, "big") * 2
    broken = CompressedImage(format="png", data=header + bytes.fromhex("0802000000") + bytes(40))
    pictures = peer.create_publisher(CompressedImage, "image/compressed", qos.BEST_EFFORT)

    def send(picture: CompressedImage) -> None:
        picture.header.stamp = peer.get_clock().now().to_msg()
        pictures.publish(picture)

    with policy_process(looks_ahead, *arguments):
        wait_until(lambda: pictures.get_subscription_count() == 1)
        peer.instruct()
        peer.diagnosis("cannot be decoded", lambda: [send(broken) for _ in range(5)])
        good = rgb_to_compressed(np.full((32, 48, 3), 255, np.uint8), 90)
        peer.diagnosis("publishing commands", lambda: send(good))


def test_disabling_stops_and_enabling_moves_again(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.begin()
        peer.moving()
        assert peer.enable(False).success
        peer.wait_for_rest()
        assert peer.is_told_nothing(peer.send)
        assert peer.enable(True).success
        peer.moving()


def test_a_dry_run_that_is_switched_on_stops_the_arm_and_marks_what_follows(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.begin()
        assert not peer.moving().dry_run
        assert peer.set_parameters(dry_run=True)[0].successful
        wait_until(lambda: peer.received["twist"][-1].twist.linear.x == 0.0)
        twists = len(peer.received["twist"])
        assert (
            peer.moving().dry_run
            and "nothing moves" in peer.status("dry run")
            and len(peer.received["twist"]) == twists
        )
        assert peer.set_parameters(dry_run=False)[0].successful
        assert not peer.moving().dry_run
        wait_until(lambda: len(peer.received["twist"]) > twists)


@pytest.mark.parametrize(("brightness", "sentence"), [(0, "was told to fail"), (10, "the action is not finite")])
def test_a_policy_that_fails_while_the_arm_moves_brings_it_to_rest(peer: Peer, brightness: int, sentence: str) -> None:
    with process(FAULTY_POLICY, "--ros-args", *LONG_HOLD):
        peer.begin()
        peer.moving()
        peer.diagnosis(sentence, lambda: peer.send(brightness))
        peer.wait_for_rest()
        peer.moving()


def test_a_stale_image_while_the_arm_moves_brings_it_to_rest(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.begin()
        peer.moving()
        peer.diagnosis("stale image", lambda: peer.send(age=5.0))
        peer.wait_for_rest()


def test_a_stale_instruction_moves_nothing_until_it_is_given_again(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD, "-p", "max_instruction_age:=0.5"):
        peer.begin()
        assert "max_instruction_age is 0.5 s" in peer.diagnosis("stale instruction", peer.send)
        assert peer.is_told_nothing(peer.send)
        assert peer.set_parameters(max_instruction_age=60.0)[0].successful
        peer.instruct()
        peer.moving()


def test_an_instruction_is_as_old_as_it_is_however_late_a_node_hears_it(peer: Peer) -> None:
    peer.instruct()
    time.sleep(1.5)
    with policy_process("FakePolicy()", *LONG_HOLD, "-p", "max_instruction_age:=1.5"):
        peer.wait_for_listener()
        peer.diagnosis("stale instruction", peer.send)
        assert not peer.received["command"]


def test_another_instruction_ends_what_the_arm_did_for_the_one_before(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.begin()
        peer.moving()
        peer.instruct("open the drawer")
        peer.wait_for_rest()
        peer.moving()


def test_an_image_of_another_frame_moves_nothing_until_a_new_instruction(peer: Peer) -> None:
    other = rgb_to_image(np.full((32, 48, 3), 255, np.uint8))
    other.header.frame_id = "wrist_camera"
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.begin()
        peer.moving()
        peer.diagnosis("frame_id changed from '' to 'wrist_camera'", lambda: peer.send(message=other))
        peer.wait_for_rest()
        assert peer.is_told_nothing(lambda: peer.send(message=other))
        peer.instruct("open the drawer")
        assert is_moving(peer.command_for(peer.send(message=other)))


def test_a_clock_that_goes_back_ends_the_episode_and_the_next_one_works(peer: Peer) -> None:
    clock = peer.create_publisher(Clock, "/clock", qos.COMMAND)
    image = rgb_to_image(np.full((32, 48, 3), 255, np.uint8))

    def show(seconds: float) -> None:
        """Simulated time, and an image of it."""
        stamp = Time(nanoseconds=int(seconds * 1e9)).to_msg()
        clock.publish(Clock(clock=stamp))
        image.header.stamp = stamp
        peer.images.publish(image)
        time.sleep(0.05)

    def last_command_is_of(seconds: float) -> bool:
        show(seconds)
        commands = peer.received["command"]
        return bool(commands) and commands[-1].header.stamp.sec == int(seconds) and is_moving(commands[-1])

    with policy_process("FakePolicy()", "-p", "use_sim_time:=true", *LONG_HOLD):
        peer.begin()
        wait_until(lambda: clock.get_subscription_count() == 1)
        wait_until(lambda: last_command_is_of(500.5))
        clock.publish(Clock(clock=Time(nanoseconds=1_500_000_000).to_msg()))
        peer.wait_for_rest()
        peer.status("the clock went back")
        wait_until(lambda: last_command_is_of(1.5))


def test_the_hand_stays_in_its_box_and_diagnostics_say_whether_there_is_one(peer: Peer) -> None:
    pose = PoseStamped()
    pose.header.frame_id = "base_link"

    def stay(x: float) -> None:
        pose.header.stamp, pose.pose.position.x = peer.get_clock().now().to_msg(), x
        peer.poses.publish(pose)
        peer.send(255)

    def box() -> str:
        values = peer.received["diagnostics"][-1].status[0].values if peer.received["diagnostics"] else []
        return next((pair.value for pair in values if pair.key == "workspace box"), "")

    def last_is(expected: float) -> Callable[[], bool]:
        def reached() -> bool:
            stay(0.95 if expected else 1.05)
            time.sleep(0.02)
            commands = peer.received["command"]
            return bool(commands) and commands[-1].delta_position.x == pytest.approx(expected)

        return reached

    high = ("-p", "workspace_high:=[1.0, 1.0, 1.0]", "-p", "max_pose_age:=5.0")
    with policy_process("FakePolicy()", *LONG_HOLD, *high):
        peer.begin()
        wait_until(lambda: "no ee_pose has come" in box())
        wait_until(last_is(0.05))
        wait_until(lambda: box() == "applied")
        wait_until(last_is(0.0))
        assert peer.received["command"][-1].delta_position.y == pytest.approx(0.1), "the other axes go on"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_arm_moves_brings_it_to_rest_before_the_node_ends(
    peer: Peer, number: signal.Signals
) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD) as child:
        peer.begin()
        peer.moving()
        child.send_signal(number)
        output, _ = child.communicate(timeout=PATIENCE)
        peer.wait_for_rest()
    assert child.returncode == 0 and "Traceback" not in output, output
