"""The fault matrix, messages and policies: what the arm received, what the user saw, what became of the node."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from faults import (
    AFTER_ENABLING,
    AFTER_INSTRUCTION,
    MOVES_AGAIN,
    ROWS,
    STOP,
    Arm,
    arm_with_an_action_in_work,
    end,
    passed,
    wait_for_sentence,
)
from peer import (
    LONG_HOLD,
    Peer,
    draft_changing_process,
    is_moving,
    policy_process,
    process,
    running_peer,
    wait_until,
)
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, String

from specvla_ros.nodes import qos
from specvla_ros.nodes.conversion import rgb_to_image

FAULTY_POLICY = """
import sys
import torch
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.nodes.policy_node import main

class FaultyPolicy(FakePolicy):
    '''What goes wrong depends on the image's brightness.'''

    def act(self, image, instruction):
        brightness = int(image.mean())
        if brightness == 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if brightness == 30:
            raise MemoryError
        self._fault = {0: "raise", 10: "nan"}.get(brightness, "")
        return super().act(image, instruction)

main(sys.argv, load=lambda values: FaultyPolicy())
"""


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


def image(**fields: Any) -> Image:
    """A bright one, with some fields as they should not be."""
    message = rgb_to_image(np.full((32, 48, 3), 255, np.uint8))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def from_another_camera() -> Image:
    message = image()
    message.header.frame_id = "wrist_camera"
    return message


def instruct_badly(peer: Peer, text: str, written: bytes = b"", instead: bytes = b"") -> None:
    """Publish an instruction, some of its bytes replaced on their way, and an image for it."""
    peer.instructions.publish(bytes(serialize_message(String(data=text))).replace(written, instead))
    peer.send(255)


MESSAGES: dict[str, Callable[[Peer], object]] = {
    "image: unknown encoding": lambda peer: peer.send(message=image(encoding="yuv422")),
    "image: a depth image, all NaN": lambda peer: peer.send(
        message=image(encoding="32FC1", step=192, data=np.full((32, 48), np.nan, np.float32).tobytes())
    ),
    "image: no pixels": lambda peer: peer.send(message=image(width=0)),
    "image: higher than its data": lambda peer: peer.send(message=image(height=64)),
    "image: step too small": lambda peer: peer.send(message=image(step=10)),
    "image: data cut short": lambda peer: peer.send(message=image(data=bytes(100))),
    "image: stamped 5 s ago": lambda peer: peer.send(255, age=5.0),
    "image: stamped 5 s ahead": lambda peer: peer.send(255, age=-5.0),
    "image: from another camera": lambda peer: peer.send(message=from_another_camera()),
    "image: message cut short on the wire": lambda peer: peer.images.publish(bytes(serialize_message(image()))[:2000]),
    "images cease": lambda peer: None,
    "instruction: empty": lambda peer: instruct_badly(peer, ""),
    "instruction: 100 kB": lambda peer: instruct_badly(peer, "go on " * 16666 + "then"),
    "instruction: not UTF-8": lambda peer: instruct_badly(peer, "open the XX drawer", b"XX", b"\xff\xfe"),
}
SILENT = ("image: message cut short on the wire", "images cease")
"""Here the arm is brought to rest by hold_time."""
POLICIES = {
    "policy raises": 0,
    "policy answers with NaN": 10,
    "policy runs out of GPU memory": 20,
    "policy runs out of memory": 30,
}


@pytest.mark.parametrize("fault", MESSAGES)
def test_a_bad_message_while_the_arm_moves_brings_it_to_rest(peer: Peer, fault: str) -> None:
    def provoke() -> object:
        return MESSAGES[fault](peer)

    with policy_process("FakePolicy()", *(() if fault in SILENT else LONG_HOLD)) as child:
        stops(peer, child, fault, provoke)


@pytest.mark.parametrize("fault", POLICIES)
def test_a_policy_that_fails_while_the_arm_moves_brings_it_to_rest(peer: Peer, fault: str) -> None:
    with process(FAULTY_POLICY, "--ros-args", *LONG_HOLD) as child:
        stops(peer, child, fault, lambda: peer.send(POLICIES[fault]))


def stops(peer: Peer, child: subprocess.Popen[str], fault: str, provoke: Callable[[], object]) -> None:
    """The fault, again and again, stops a moving arm once and is told; afterwards the arm moves again."""
    row = ROWS[fault]
    peer.begin()
    peer.moving()
    arm = Arm(peer)
    wait_for_sentence(peer, row, provoke)
    assert arm.outcome(provoke) == row.arm and row.node in (MOVES_AGAIN, AFTER_INSTRUCTION)
    if row.node == AFTER_INSTRUCTION:
        peer.instruct()
    wait_until(lambda: moves(peer))
    end(child, row)
    passed.add(fault)


def moves(peer: Peer) -> bool:
    """Show an image; whether the newest command moves the arm."""
    peer.send(255)
    time.sleep(0.05)
    return is_moving(peer.received["command"][-1])


def test_without_any_image_nothing_is_sent_and_the_first_one_moves_the_arm(peer: Peer) -> None:
    row = ROWS["no image at all"]
    with policy_process("FakePolicy()") as child:
        peer.begin()
        arm = Arm(peer)
        wait_for_sentence(peer, row)
        assert (arm.outcome(), row.node) == (row.arm, MOVES_AGAIN)
        peer.moving()
        end(child, row)
    passed.add("no image at all")


def test_an_instruction_that_changes_while_an_action_is_decoded_makes_it_void(peer: Peer) -> None:
    row = ROWS["instruction: changed while an action is decoded"]
    with policy_process("FakePolicy(delay=0.5)", *LONG_HOLD) as child:
        arm = arm_with_an_action_in_work(peer)
        peer.instruct("open the drawer")
        wait_until(lambda: not is_moving(peer.received["command"][-1]))
        assert arm.outcome() == row.arm == STOP
        wait_until(lambda: moves(peer))
        end(child, row)
    passed.add("instruction: changed while an action is decoded")


@pytest.mark.parametrize("fault", ["emergency stop: pressed", "emergency stop: its publisher is lost, estop_required"])
def test_an_emergency_stop_that_is_pressed_or_lost_stops_the_arm(peer: Peer, fault: str) -> None:
    row = ROWS[fault]
    with policy_process("FakePolicy()", *LONG_HOLD, "-p", "estop_required:=true") as child:
        peer.begin()
        peer.estops.publish(Bool(data=False))
        peer.moving()
        arm = Arm(peer)
        if fault == "emergency stop: pressed":
            peer.estops.publish(Bool(data=True))
        else:
            peer.destroy_publisher(peer.estops)
        wait_for_sentence(peer, row)
        assert arm.outcome(lambda: peer.send(255)) == row.arm and row.node == AFTER_ENABLING
        if fault != "emergency stop: pressed":
            peer.estops = peer.create_publisher(Bool, "estop", qos.LATCHED)
        peer.estops.publish(Bool(data=False))
        peer.diagnosis("not enabled", lambda: peer.send(255))
        assert arm.outcome(lambda: peer.send(255)) == row.arm
        assert peer.enable(True).success
        wait_until(lambda: moves(peer))
        end(child, row)
    passed.add(fault)


def test_while_another_draft_is_loaded_nothing_moves(peer: Peer) -> None:
    fault = "another draft is loaded for 2 s"
    row = ROWS[fault]
    with draft_changing_process("time.sleep(2.0)", 0.2, *LONG_HOLD) as child:
        arm = arm_with_an_action_in_work(peer)
        changed = peer.parameter_client.set_parameters([Parameter("draft", value="linear")])
        while not changed.done():
            peer.send(255)
            time.sleep(0.05)
        assert changed.result().results[0].successful and arm.outcome() == row.arm
        wait_until(lambda: moves(peer))
        end(child, row)
    passed.add(fault)


SIM_TIME = ("-p", "use_sim_time:=true")
BEGINNING = 500.0
"""Seconds of simulated time."""


class Simulation:
    """Simulated time, and images of it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._clock = peer.create_publisher(Clock, "/clock", qos.COMMAND)

    def begin(self) -> None:
        """Once the node has seen the time, tell it what to do: an instruction counts its age from when it came."""

        def is_seen() -> bool:
            self.tell(BEGINNING)
            time.sleep(0.1)
            return any(array.header.stamp.sec == int(BEGINNING) for array in self._peer.received["diagnostics"])

        wait_until(is_seen)
        self._peer.begin()

    def tell(self, seconds: float) -> None:
        self._clock.publish(Clock(clock=Time(nanoseconds=int(seconds * 1e9)).to_msg()))

    def show(self, seconds: float) -> None:
        """An image stamped so."""
        picture = image()
        picture.header.stamp = Time(nanoseconds=int(seconds * 1e9)).to_msg()
        self._peer.images.publish(picture)

    def moves_at(self, seconds: float) -> bool:
        """Show simulated time and an image of it; whether the arm moves by it."""
        self.tell(seconds)
        self.show(seconds)
        time.sleep(0.05)
        stamp, commands = Time(nanoseconds=int(seconds * 1e9)).to_msg(), self._peer.received["command"]
        return bool(commands) and commands[-1].header.stamp == stamp and is_moving(commands[-1])


def test_a_clock_that_goes_back_brings_the_arm_to_rest(peer: Peer) -> None:
    row, simulation = ROWS["clock goes back"], Simulation(peer)
    with policy_process("FakePolicy()", *SIM_TIME, *LONG_HOLD) as child:
        simulation.begin()
        wait_until(lambda: simulation.moves_at(500.5))
        arm = Arm(peer)
        simulation.tell(1.5)
        wait_for_sentence(peer, row)
        assert arm.outcome() == row.arm
        wait_until(lambda: simulation.moves_at(1.5))
        end(child, row)
    passed.add("clock goes back")


@pytest.mark.parametrize("limit", [(), ("-p", "max_instruction_age:=60.0")], ids=["images", "instruction"])
def test_after_a_clock_that_jumps_ahead_only_what_is_fresh_moves_the_arm(peer: Peer, limit: tuple[str, ...]) -> None:
    fault = "clock jumps ahead by 1000 s" + (", max_instruction_age 60 s" if limit else "")
    row, simulation = ROWS[fault], Simulation(peer)
    with policy_process("FakePolicy()", *SIM_TIME, *LONG_HOLD, *limit) as child:
        simulation.begin()
        wait_until(lambda: simulation.moves_at(500.5))
        arm = Arm(peer)
        simulation.tell(1500.5)

        def provoke() -> None:
            """The old images go on; or new ones do, under the old instruction."""
            simulation.show(1500.5 if limit else 500.5)

        wait_for_sentence(peer, row, provoke)
        assert arm.outcome(provoke) == row.arm
        if row.node == AFTER_INSTRUCTION:
            peer.instruct()
        wait_until(lambda: simulation.moves_at(1500.6))
        end(child, row)
    passed.add(fault)


def test_a_clock_that_stands_still_ends_the_motion_by_wall_time(peer: Peer) -> None:
    row, simulation = ROWS["clock stands still"], Simulation(peer)
    with policy_process("FakePolicy()", *SIM_TIME, "-p", "hold_time:=1.0") as child:
        simulation.begin()
        now = itertools.count(5001)
        wait_until(lambda: simulation.moves_at(next(now) / 10))
        ceased, arm = time.monotonic(), Arm(peer)
        wait_until(lambda: not is_moving(peer.received["command"][-1]))
        assert time.monotonic() - ceased < 3.0, "hold_time, a tick and the test's own delay"
        assert arm.outcome() == row.arm
        wait_for_sentence(peer, row)
        wait_until(lambda: simulation.moves_at(next(now) / 10))
        end(child, row)
    passed.add("clock stands still")
