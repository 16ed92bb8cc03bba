"""The policy node's life under a lifecycle manager, and by itself: as a process, over real DDS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from installation import prefix_of
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from peer import (
    LONG_HOLD,
    Peer,
    draft_changing_process,
    is_moving,
    policy_process,
    running_peer,
    sending,
    wait_until,
)
from rclpy.parameter import Parameter
from std_msgs.msg import Bool

MANAGED = ("-p", "autostart:=false")


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as peer:
        yield peer


def test_a_managed_node_waits_for_every_transition(peer: Peer) -> None:
    with policy_process("FakePolicy()", *MANAGED, "-p", "hold_time:=10.0") as child:
        assert peer.state == "unconfigured" and "configure loads the policy" in peer.status("unconfigured")
        assert peer.images.get_subscription_count() == 0
        assert peer.change_state("configure") and peer.state == "inactive"
        assert peer.images.get_subscription_count() == 0, "an inactive node does not listen to the camera"
        assert peer.change_state("activate") and peer.state == "active"
        peer.begin()
        peer.moving()
        assert peer.change_state("deactivate") and peer.state == "inactive"
        stop = peer.wait_for_rest()
        assert stop.held
        wait_until(lambda: peer.images.get_subscription_count() == 0)
        assert peer.change_state("cleanup") and peer.state == "unconfigured"
        assert "the policy was freed" in peer.status("freed")
        assert not is_moving(peer.received["command"][-1])
        (refused,) = peer.set_parameters(enabled_at_start=False)
        assert "as the process starts" in refused.reason, "the arm would not wait after all"
        assert peer.change_state("shutdown") and peer.state == "finalized"
        assert child.poll() is None


def test_nav2s_manager_brings_it_up(peer: Peer) -> None:
    """Its calls in its order: transitions by id, and get_state within two seconds of each answer."""
    steps = (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    )
    with policy_process("load_from_parameters(values)", *MANAGED, "-p", "policy:=fake", "-p", "hold_time:=10.0"):
        peer.wait_until_answered()
        for transition, state in steps:
            request = ChangeState.Request()
            request.transition.id = transition
            changing = peer.changing.call_async(request)
            wait_until(changing.done)
            assert changing.result().success
            asking = peer.asking.call_async(GetState.Request())
            wait_until(asking.done, lambda: "the state after a transition", patience=2.0)
            assert asking.result().current_state.id == state
        peer.begin()
        peer.moving()


def test_nav2s_own_manager_brings_it_up(peer: Peer) -> None:
    """With the parameters that docs/arm.md gives it."""
    prefix = prefix_of("nav2_lifecycle_manager")
    if prefix is None:
        pytest.skip("nav2's lifecycle manager is in no package registry; it comes with nav2")
    manager = prefix / "lib" / "nav2_lifecycle_manager" / "lifecycle_manager"
    parameters = ("autostart:=true", "node_names:=[specvla]", "bond_timeout:=0.0")
    command = [str(manager), "--ros-args", *(word for one in parameters for word in ("-p", one))]
    with policy_process("FakePolicy()", *MANAGED, "-p", "hold_time:=10.0"), subprocess.Popen(command) as managing:
        try:
            wait_until(lambda: peer.state == "active", patience=60.0)
            peer.begin()
            peer.moving()
        finally:
            managing.terminate()


def test_a_node_that_was_deactivated_moves_again_after_its_activation(peer: Peer) -> None:
    with policy_process():
        peer.begin()
        peer.moving()
        assert peer.change_state("deactivate") and peer.change_state("activate")
        peer.wait_for_listener()
        peer.moving()


def test_a_draft_that_a_full_gpu_cannot_take_is_refused_and_the_node_goes_on(peer: Peer) -> None:
    with draft_changing_process("raise RuntimeError('CUDA out of memory')", 0.0):
        peer.begin()
        peer.moving()
        refused = peer.set_parameters(draft="eagle")[0]
        assert not refused.successful and refused.reason == "RuntimeError: CUDA out of memory"
        peer.moving()


@pytest.mark.parametrize(("words", "reason"), [([True], "emergency stop"), ([True, False], "not enabled")])
def test_nothing_moves_while_a_draft_is_loaded_and_an_emergency_stop_pressed_meanwhile_counts(
    peer: Peer, words: list[bool], reason: str
) -> None:
    with draft_changing_process("time.sleep(1.2)", 0.2, *LONG_HOLD):
        peer.begin()
        peer.moving()
        with sending(peer):
            changed = peer.parameter_client.set_parameters([Parameter("draft", value="linear")])
            peer.wait_for_rest()
            rested = len(peer.received["command"])
            time.sleep(0.5)
            for pressed in words:
                peer.estops.publish(Bool(data=pressed))
                time.sleep(0.1)
            wait_until(changed.done)
            peer.diagnosis(reason)
            assert changed.result().results[0].successful
            assert len(peer.received["command"]) == rested, "not even with what was decoded when it began"


def test_after_several_changes_of_the_draft_nothing_moves_for_as_long_as_after_one(peer: Peer) -> None:
    with draft_changing_process("time.sleep(0.5)", 0.0, *LONG_HOLD):
        peer.begin()
        peer.moving()
        with sending(peer):
            changes = [
                peer.parameter_client.set_parameters([Parameter("draft", value=draft)]) for draft in ("none", "linear")
            ]
            wait_until(changes[-1].done)
            changed = time.monotonic()
            assert not is_moving(peer.received["command"][-1])
            wait_until(lambda: is_moving(peer.received["command"][-1]))
            assert time.monotonic() - changed > 0.2


@pytest.mark.parametrize("draft", ["x" * 300, "hold+\0", "/dev/null"])
def test_a_draft_that_no_file_system_knows_is_refused_and_the_node_lives_on(peer: Peer, draft: str) -> None:
    with policy_process("load_from_parameters(values)", "-p", "max_image_age:=0.0", *LONG_HOLD):
        peer.begin()
        peer.command_for(peer.send(200))
        assert not peer.set_parameters(draft=draft)[0].successful
        peer.command_for(peer.send(90))


def test_the_draft_changes_while_the_node_is_active_and_one_that_does_not_exist_is_refused(peer: Peer) -> None:
    with policy_process("load_from_parameters(values)", "-p", "max_image_age:=0.0", "-p", "hold_time:=10.0"):
        peer.begin()
        peer.command_for(peer.send(200))
        refused = peer.set_parameters(draft="nonsense")[0]
        assert not refused.successful and "'nonsense' does not exist" in refused.reason
        assert peer.set_parameters(draft="none", threshold=2)[0].successful
        stop = peer.wait_for_rest()
        assert stop.held, "the episode begins again, from rest"
        image = peer.send(90)
        peer.command_for(image)
        wait_until(lambda: any(stats.header.stamp == image.header.stamp for stats in peer.received["stats"]))
        assert peer.received["stats"][-1].target_forwards == 7, "none drafts nothing"


def test_a_configuration_that_fails_says_why_and_may_be_tried_again_with_other_parameters(peer: Peer) -> None:
    with policy_process("load_from_parameters(values)", *MANAGED, "-p", "checkpoint:=/nowhere/openvla"):
        assert not peer.change_state("configure") and peer.state == "unconfigured"
        assert "/nowhere/openvla is not a directory" in peer.status("the policy was not loaded")
        assert peer.set_parameters(policy="fake")[0].successful
        assert peer.change_state("configure") and peer.state == "inactive"
        assert "read-only while configured" in peer.set_parameters(policy="openvla")[0].reason


def test_configuring_reports_in_the_diagnostics_while_it_loads(peer: Peer) -> None:
    with policy_process("(__import__('time').sleep(2.5), FakePolicy())[1]", *MANAGED):
        assert peer.change_state("configure")
        wait_until(lambda: bool(peer.received["diagnostics"]))
        assert any(array.status[0].message == "loading the policy" for array in peer.received["diagnostics"])


def test_parameters_change_together_or_not_at_all(peer: Peer) -> None:
    with policy_process():
        peer.begin()
        assert peer.parameter_client.wait_for_services(10.0)
        for values, reason in [
            ({"threshold": 5, "workspace_low": [20.0] * 3}, "is not below workspace_high"),
            ({"threshold": 5, "speed_limits": [1.0]}, "speed_limits has 1 values; expected 6"),
            ({"threshold": 5, "tree_nodes": 20}, "tree_nodes: read-only while configured"),
        ]:
            parameters = [Parameter(name, value=value) for name, value in values.items()]
            future = peer.parameter_client.set_parameters_atomically(parameters)
            wait_until(future.done)
            assert not future.result().result.successful and reason in future.result().result.reason
        assert list(peer.command_for(peer.send(10)).thresholds) == [0] * 7
        assert peer.set_parameters(speed_limits=[0.01] * 6)[0].successful
        assert peer.command_for(peer.send(255)).delta_position.x == pytest.approx(0.01)


def test_the_status_is_told_once_for_each_change_and_kept_for_who_comes_late(peer: Peer) -> None:
    with policy_process():
        peer.begin()
        for brightness in range(0, 200, 20):
            peer.command_for(peer.send(brightness))
        peer.status("publishing commands")
        peer.diagnosis("stale image", lambda: peer.send(age=5.0))
        peer.status("stale image")
        sentences = [status.message for status in peer.received["status"]]
    assert sentences.count("publishing commands") == 1
    assert sum("stale image" in sentence for sentence in sentences) == 1
