"""The other end of the policy node's topics, for tests: a real rclpy node, and the nodes under test as processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool

from specvla_ros.msg import DecodeStats, EndEffectorCommand
from specvla_ros.nodes import qos
from specvla_ros.nodes.conversion import rgb_to_image

PATIENCE = 15.0
"""Seconds until a test gives up waiting; discovery now and then takes three."""
LONG_HOLD = ("-p", "hold_time:=10.0")
"""Parameters of a policy node whose arm nothing brings to rest but what the test does."""


class Peer(Node):
    """Publishes images and instructions; keeps every answer."""

    def __init__(self) -> None:
        super().__init__("peer")
        self.images = self.create_publisher(Image, "image", qos.IMAGE)
        self.instructions = self.create_publisher(String, "instruction", qos.LATCHED)
        self.estops = self.create_publisher(Bool, "estop", qos.LATCHED)
        self.poses = self.create_publisher(PoseStamped, "ee_pose", qos.BEST_EFFORT)
        kinds = ("command", "twist", "stats", "diagnostics", "status")
        self.received: dict[str, list[Any]] = {kind: [] for kind in kinds}
        self.create_subscription(EndEffectorCommand, "ee_command", self.received["command"].append, qos.EVERY_COMMAND)
        self.create_subscription(TwistStamped, "delta_twist", self.received["twist"].append, qos.COMMAND)
        self.create_subscription(DecodeStats, "decode_stats", self.received["stats"].append, qos.STATS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self.received["diagnostics"].append, qos.STATS)
        self.create_subscription(DiagnosticStatus, "specvla/status", self.received["status"].append, qos.LATCHED)
        self.enabling = self.create_client(SetBool, "specvla/enable")
        self.changing = self.create_client(ChangeState, "specvla/change_state")
        self.asking = self.create_client(GetState, "specvla/get_state")
        self.parameter_client = AsyncParameterClient(self, "specvla")

    def send(self, brightness: int = 128, *, age: float = 0.0, message: Image | None = None) -> Image:
        """Publish a grey image (or `message`) stamped `age` seconds ago."""
        image = message or rgb_to_image(np.full((32, 48, 3), brightness, np.uint8))
        stamp = self.get_clock().now() - rclpy.duration.Duration(seconds=age)
        image.header.stamp = stamp.to_msg()
        self.images.publish(image)
        return image

    def instruct(self, text: str = "pick up the bowl") -> None:
        self.instructions.publish(String(data=text))

    def begin(self, text: str = "pick up the bowl") -> None:
        """Once the node listens to the camera, tell it what to do."""
        self.wait_for_listener()
        self.instruct(text)

    def wait_for_listener(self) -> None:
        """Until the node listens to the camera, as it does while active."""
        wait_until(lambda: self.images.get_subscription_count() == 1)

    def is_told_nothing(self, provoke: Callable[[], object] = lambda: None) -> bool:
        """Whether no command comes for half a second, whatever `provoke` does meanwhile."""
        count = len(self.received["command"])
        for _ in range(10):
            provoke()
            time.sleep(0.05)
        return len(self.received["command"]) == count

    def call(self, client: Any, request: Any) -> Any:
        """The answer of a service."""
        self.wait_until_answered()
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(request)
        wait_until(future.done)
        return future.result()

    def wait_until_answered(self) -> str:
        """Ask for the lifecycle state until it is told; the state.

        A server that is found may not have found its client yet, and its answer is then lost. Asking for the state
        again does no harm, unlike asking for a transition, and a new client is found anew.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.asking.wait_for_service(1.0):
                future = self.asking.call_async(GetState.Request())
                with suppress(AssertionError):
                    wait_until(future.done, patience=2.0)
                    return str(future.result().current_state.label)
                self.asking = self.create_client(GetState, "specvla/get_state")
        raise AssertionError(f"waited {PATIENCE} s for the lifecycle state")

    def enable(self, value: bool) -> SetBool.Response:
        """Call ~/enable."""
        return self.call(self.enabling, SetBool.Request(data=value))

    def change_state(self, label: str) -> bool:
        """Ask for a lifecycle transition by its label; whether it succeeded."""
        request = ChangeState.Request()
        request.transition.label = label
        return bool(self.call(self.changing, request).success)

    @property
    def state(self) -> str:
        """The lifecycle state."""
        return self.wait_until_answered()

    def set_parameters(self, **values: Any) -> list[SetParametersResult]:
        """Set the policy node's parameters by its service, from this process."""
        self.wait_until_answered()
        assert self.parameter_client.wait_for_services(PATIENCE)
        future = self.parameter_client.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        wait_until(future.done)
        return list(future.result().results)

    def command_for(self, image: Image) -> EndEffectorCommand:
        """The command that answers an image; the image is sent again while none comes (it goes out best effort)."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for _ in range(20):
                for command in self.received["command"]:
                    if command.header.stamp == image.header.stamp:
                        return command
                time.sleep(0.02)
            self.images.publish(image)
        raise AssertionError("no command came")

    def moving(self, brightness: int = 255) -> EndEffectorCommand:
        """Send images until the arm moves; the command that moves it."""
        command = self.command_for(self.send(brightness))
        assert is_moving(command)
        return command

    def wait_for_rest(self) -> EndEffectorCommand:
        """The stop after the last command that moved."""
        wait_until(lambda: not is_moving(self.received["command"][-1]), lambda: "a command without motion")
        return self.received["command"][-1]

    def status(self, part: str) -> str:
        """Wait for a sentence on ~/status that holds `part`."""
        wait_until(
            lambda: any(part in status.message for status in self.received["status"]),
            lambda: f"{part!r} in {[status.message for status in self.received['status']]}",
        )
        return next(status.message for status in reversed(self.received["status"]) if part in status.message)

    def diagnosis(self, part: str, provoke: Callable[[], object] = lambda: None) -> str:
        """Wait for diagnostics whose sentence holds `part`, doing `provoke` again and again; the sentence."""

        def sentences() -> list[str]:
            return [array.status[0].message for array in self.received["diagnostics"]]

        def found() -> bool:
            provoke()
            time.sleep(0.1)
            return any(part in sentence for sentence in sentences())

        wait_until(found, lambda: f"{part!r} in {sentences()}")
        return next(sentence for sentence in reversed(sentences()) if part in sentence)


def is_moving(command: EndEffectorCommand) -> bool:
    """Whether any axis of a command moves."""
    position, rotation = command.delta_position, command.delta_rotation
    return any((position.x, position.y, position.z, rotation.x, rotation.y, rotation.z))


def wait_until(
    condition: Callable[[], bool], what: Callable[[], str] = lambda: "the condition", patience: float = PATIENCE
) -> None:
    """Poll until the condition holds; never a fixed sleep."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience} s for {what()}"
        time.sleep(0.01)


@contextmanager
def running_peer() -> Iterator[Peer]:
    """A peer whose callbacks are served in a thread."""
    rclpy.init()
    peer = Peer()
    executor = SingleThreadedExecutor()
    executor.add_node(peer)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        executor.shutdown()
        thread.join()
        peer.destroy_node()
        rclpy.try_shutdown()


@contextmanager
def sending(peer: Peer) -> Iterator[None]:
    """Images at 20 Hz in the background."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(0.05):
            peer.send(255)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


NOT_UNDER_NOHUP = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
"""A child inherits that the signal is ignored."""


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process under test, ended if it still lives: a killed one would leave shared memory behind."""
    child = subprocess.Popen(
        [sys.executable, "-c", NOT_UNDER_NOHUP + code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.communicate(timeout=PATIENCE)
        finally:
            # One that does not end must not answer in the next test.
            child.kill()


def policy_process(policy: str = "FakePolicy()", *arguments: str) -> Any:
    """A policy node whose policy is the given expression; it announces itself through its services."""
    code = (
        "import sys\n"
        "from specvla_ros.fake_policy import FakePolicy\n"
        "from specvla_ros.nodes.policy_node import load_from_parameters, main\n"
        f"main(sys.argv, load=lambda values: {policy})\n"
    )
    return process(code, *(("--ros-args", *arguments) if arguments else ()))


def draft_changing_process(change: str, delay: float, *arguments: str) -> Any:
    """A policy node whose drafts are changed by the statement `change`; its policy takes `delay` seconds an action."""
    code = (
        "import sys, time\n"
        "from specvla_ros.fake_policy import FakePolicy\n"
        "from specvla_ros.nodes import policy_node\n"
        "def with_draft(policy, values):\n"
        f"    {change}\n"
        "    return policy\n"
        "policy_node.with_draft = with_draft\n"
        f"policy_node.main(sys.argv, load=lambda values: FakePolicy(delay={delay}))\n"
    )
    return process(code, *(("--ros-args", *arguments) if arguments else ()))
