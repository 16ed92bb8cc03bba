"""Transitions of the policy node that fail half-way: in this process, so that each step can be made to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from peer import wait_until
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from specvla_ros.fake_policy import FakePolicy
from specvla_ros.nodes.inputs import Arrival
from specvla_ros.nodes.policy_node import PolicyNode
from specvla_ros.nodes.worker import NewestWorker
from specvla_ros.policy import Action, DecodeStats

ERROR, SUCCESS = TransitionCallbackReturn.ERROR, TransitionCallbackReturn.SUCCESS


class SlowPolicy(FakePolicy):
    """Answers when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.go = threading.Event(), threading.Event()

    def act(self, image: np.ndarray, instruction: str) -> Action:
        self.began.set()
        assert self.go.wait(15.0)
        return super().act(image, instruction)


@pytest.fixture
def node() -> Iterator[PolicyNode]:
    """A configured node; nothing spins, so the commands that it publishes are kept here."""
    rclpy.init(args=["--ros-args", "-p", "autostart:=false"])
    node = PolicyNode(lambda values: SlowPolicy())
    assert node.trigger_configure() == SUCCESS
    try:
        yield node
    finally:
        node.close()
        node.destroy_node()
        del node._state_machine  # it holds the node's handle: tests that come after would still see the node
        rclpy.try_shutdown()


def state(node: PolicyNode) -> str:
    return str(node._state_machine.current_state[1])


def timers(node: PolicyNode) -> int:
    return len(list(node.timers))


def motion(node: PolicyNode) -> bool:
    """Whether an action would go out now."""
    action = Action(np.full(7, 0.5), (1,) * 7, DecodeStats((5,), 2, (0,) * 7))
    return node._stream.send(action, (0,) * 7, Header(), node._inference.instruction.episode)


def is_at_rest(node: PolicyNode, timers_before: int) -> bool:
    topics = [subscription.topic_name for subscription in node.subscriptions]
    return not motion(node) and timers(node) == timers_before and "/image" not in topics


@pytest.mark.parametrize("step", ["create_timer", "create_subscription"])
def test_an_activation_that_fails_half_way_ends_at_rest_and_may_be_tried_again(
    node: PolicyNode, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = timers(node)

    def fail(kind: Any, *arguments: Any, **keywords: Any) -> Any:
        raise RuntimeError("no more memory")

    with monkeypatch.context() as patch:
        patch.setattr(node, step, fail)
        node.trigger_activate()
    assert state(node) == "unconfigured" and is_at_rest(node, before)
    assert node._stream.gate.reason.startswith("inactive")
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    assert state(node) == "active" and motion(node) and timers(node) == before + 1


def test_an_error_in_a_transition_stops_an_arm_that_moves_and_frees_the_policy(
    node: PolicyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = timers(node)
    assert node.trigger_activate() == SUCCESS and motion(node)

    def fail() -> None:
        raise RuntimeError("the middleware is gone")

    said: list[float] = []
    monkeypatch.setattr(node._stream._commands, "publish", lambda command: said.append(command.delta_position.x))
    with monkeypatch.context() as patch:
        stop_motion, calls = node.stop_motion, iter([fail])
        patch.setattr(node, "stop_motion", lambda: next(calls, stop_motion)())
        node.trigger_deactivate()
    assert state(node) == "unconfigured" and said == [0.0]
    assert is_at_rest(node, before) and not node.is_loaded and node.worker is None


def test_a_cleanup_under_an_action_that_does_not_end_is_an_error_and_that_action_never_counts(
    node: PolicyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = NewestWorker.stop
    monkeypatch.setattr(NewestWorker, "stop", lambda worker: stop(worker, 0.1))
    assert node.trigger_activate() == SUCCESS
    node._inference.begin_episode("pick up the bowl", node._now())
    policy, thread = node._inference.policy, node.worker._thread
    picture = Image(encoding="rgb8", width=16, height=16, step=48, data=bytes([255]) * 768)
    picture.header.stamp = node.get_clock().now().to_msg()
    node.worker.submit(Arrival(picture, time.monotonic()))
    assert policy.began.wait(15.0)
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == ERROR
    assert state(node) == "unconfigured" and not node.is_loaded and node.worker is None
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    said: list[Any] = []
    monkeypatch.setattr(node._stream._commands, "publish", said.append)
    policy.go.set()
    wait_until(lambda: not thread.is_alive())
    assert not said, "decoded for an activation that is over"
