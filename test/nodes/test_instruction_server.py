"""One instruction as a ROS action: the policy node as a process, over real DDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from action_msgs.msg import GoalStatus
from peer import LONG_HOLD, PATIENCE, Peer, is_moving, policy_process, running_peer, sending, wait_until
from rclpy.action import ActionClient
from rclpy.clock import Clock
from rclpy.logging import get_logger
from std_msgs.msg import Bool
from std_srvs.srv import SetBool
from stream_bench import MILLISECOND
from test_inference import Work

from specvla_ros.action import FollowInstruction
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.nodes import instruction_server
from specvla_ros.nodes.instruction_server import InstructionServer


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    """A client of a node with the fake policy, whose images come at 20 Hz."""
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.wait_for_listener()
        with sending(peer):
            yield Client(peer)


class Client:
    """Sends goals and keeps the feedback."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.feedback: list[FollowInstruction.Feedback] = []
        self._client = ActionClient(peer, FollowInstruction, "specvla/follow_instruction")

    def send(self, instruction: str = "pick up the bowl", time_limit: float = 0.0) -> Any:
        """The goal's handle."""
        assert self._client.wait_for_server(PATIENCE)
        self._wait_until_answered()
        goal = FollowInstruction.Goal(instruction=instruction, time_limit=time_limit)
        return self._answer(self._client.send_goal_async(goal, lambda message: self.feedback.append(message.feedback)))

    def _wait_until_answered(self) -> None:
        """A server that is found may not have found this client yet, and its answer is then lost: ask for what is
        refused and moves nothing.
        """
        for _ in range(int(PATIENCE)):
            future = self._client.send_goal_async(FollowInstruction.Goal(instruction=" "))
            with suppress(AssertionError):
                wait_until(future.done, patience=1.0)
                return
        raise AssertionError(f"waited {PATIENCE} s for the answer to a goal")

    def result(self, handle: Any) -> tuple[int, FollowInstruction.Result]:
        """A goal's status and result."""
        response = self._answer(handle.get_result_async())
        return response.status, response.result

    def cancel(self, handle: Any) -> None:
        assert self._answer(handle.cancel_goal_async()).goals_canceling

    @property
    def is_moving(self) -> bool:
        commands = self.peer.received["command"]
        return bool(commands) and is_moving(commands[-1])

    @staticmethod
    def _answer(future: Any) -> Any:
        wait_until(future.done)
        return future.result()


def test_a_goal_moves_the_arm_tells_of_it_and_its_cancel_brings_the_arm_to_rest(client: Client) -> None:
    handle = client.send()
    assert handle.accepted
    wait_until(lambda: client.is_moving and len(client.feedback) > 3)
    steps = [feedback.steps for feedback in client.feedback]
    assert steps == sorted(set(steps)) and all(feedback.elapsed > 0 for feedback in client.feedback)
    assert client.feedback[-1].latency_ms > 0 and client.feedback[-1].accept_length == 3.5
    client.cancel(handle)
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_CANCELED and result.message == "cancelled" and result.steps >= steps[-1]
    wait_until(lambda: not client.is_moving)
    assert client.peer.is_told_nothing(), "and no instruction is in force afterwards"


def test_a_goal_whose_time_is_up_succeeds_and_the_arm_rests(client: Client) -> None:
    status, result = client.result(client.send(time_limit=0.8))
    assert status == GoalStatus.STATUS_SUCCEEDED and result.message == "its 0.8 s are up"
    assert result.steps > 3 and 0.8 <= result.elapsed < 2.0
    wait_until(lambda: not client.is_moving)
    assert client.peer.is_told_nothing()


def test_a_goal_for_which_nothing_was_decoded_did_not_succeed(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD):
        peer.wait_for_listener()
        client = Client(peer)
        status, result = client.result(client.send(time_limit=0.3))
    assert status == GoalStatus.STATUS_ABORTED and "no action was decoded" in result.message and result.steps == 0


def test_a_goal_keeps_its_instruction_fresh(peer: Peer) -> None:
    with policy_process("FakePolicy()", *LONG_HOLD, "-p", "max_instruction_age:=0.5"):
        peer.wait_for_listener()
        with sending(peer):
            client = Client(peer)
            status, _ = client.result(client.send(time_limit=2.0))
            late = client.feedback[-1].elapsed
    assert status == GoalStatus.STATUS_SUCCEEDED and late > 1.5, "it was followed to the end"


def test_an_emergency_stop_aborts_the_goal_and_its_release_does_not_take_it_up_again(client: Client) -> None:
    handle = client.send()
    wait_until(lambda: client.is_moving)
    client.peer.estops.publish(Bool(data=True))
    status, result = client.result(handle)
    assert status == GoalStatus.STATUS_ABORTED and "emergency stop" in result.message
    assert not client.send().accepted, "nothing may move now"
    client.peer.estops.publish(Bool(data=False))
    wait_until(lambda: client.peer.enable(True).success)
    assert not client.is_moving and client.peer.is_told_nothing()
    assert client.send().accepted
    wait_until(lambda: client.is_moving)


def test_whoever_instructs_the_arm_next_takes_it(client: Client) -> None:
    first = client.send("pick up the bowl")
    wait_until(lambda: client.is_moving)
    second = client.send("push the plate")
    assert client.result(first)[0] == GoalStatus.STATUS_ABORTED
    wait_until(lambda: client.is_moving)
    client.peer.begin("open the drawer")
    status, result = client.result(second)
    assert status == GoalStatus.STATUS_ABORTED and "on the topic" in result.message
    wait_until(lambda: client.is_moving)


def test_unusable_goals_are_refused_and_move_nothing(client: Client) -> None:
    for instruction, limits in ((" ", [0.0]), ("x" * 2000, [0.0]), ("go", [-1.0, float("nan"), float("inf")])):
        for limit in limits:
            assert not client.send(instruction, limit).accepted, (instruction, limit)
    assert client.peer.is_told_nothing()


class Stage(Work):
    """A server without a node: goals, looks and images take turns as DDS seldom lets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(FakePolicy())
        self.ended: list[str] = []
        monkeypatch.setattr(instruction_server, "ActionServer", self._keep)
        node: Any = SimpleNamespace(get_logger=lambda: get_logger("specvla"), create_timer=self._keep_look)
        InstructionServer(node, self.inference, self.stream, lambda: self.now, Clock())

    def _keep(self, *_: Any, execute_callback: Any, **__: Any) -> None:
        self._execute = execute_callback

    def _keep_look(self, _: float, look: Callable[[], None], clock: Clock) -> None:
        self.look = look

    def begin(self, time_limit: float = 0.0, is_cancel_requested: bool = False) -> Any:
        """A goal that is followed from now on; what to resume for its result."""
        endings = {name: partial(self.ended.append, name) for name in ("succeed", "abort", "canceled")}
        request = FollowInstruction.Goal(instruction="push the plate", time_limit=time_limit)
        following = self._execute(SimpleNamespace(is_cancel_requested=is_cancel_requested, request=request, **endings))
        following.send(None)
        return following


def result_of(following: Any) -> FollowInstruction.Result:
    with pytest.raises(StopIteration) as end:
        following.send(None)
    return end.value.value


def test_a_goal_that_was_cancelled_before_it_began_moves_nothing_and_ends_as_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(monkeypatch)
    following = stage.begin(is_cancel_requested=True)
    stage.show()
    stage.look()
    assert not stage.commands.messages and stage.ended == ["canceled"]
    assert result_of(following) == FollowInstruction.Result(message="cancelled")


def test_what_was_decoded_for_another_is_not_counted_for_a_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch)
    stage.show()
    assert stage.inference.progress.steps == 1
    following = stage.begin(time_limit=1.0)
    stage.now += 1000 * MILLISECOND
    stage.look()
    result = result_of(following)
    assert stage.ended == ["abort"] and "no action was decoded" in result.message and result.steps == 0


def test_a_goal_does_not_outlive_a_disabling_however_short(client: Client) -> None:
    handle = client.send()
    wait_until(lambda: client.is_moving)
    client.peer.wait_until_answered()
    assert client.peer.enabling.wait_for_service(PATIENCE)
    calls = [client.peer.enabling.call_async(SetBool.Request(data=value)) for value in (False, True)]
    wait_until(lambda: all(call.done() for call in calls))
    assert client.result(handle)[0] == GoalStatus.STATUS_ABORTED
    assert not client.is_moving and client.peer.is_told_nothing()


def test_a_deactivation_aborts_the_goal(client: Client) -> None:
    handle = client.send()
    wait_until(lambda: client.is_moving)
    assert client.peer.change_state("deactivate")
    assert client.result(handle)[0] == GoalStatus.STATUS_ABORTED
    assert client.peer.change_state("activate")
    assert not client.is_moving and client.peer.is_told_nothing()
