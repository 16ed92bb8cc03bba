"""The policy node as a process: how it ends, and what it says when time stands still."""

from __future__ import annotations

import signal
import time

from peer import PATIENCE, policy_process, running_peer, wait_until


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
