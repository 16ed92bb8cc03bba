"""How a node process ends."""

from __future__ import annotations

import signal

import pytest
from peer import PATIENCE, process

INTERRUPTED_IN_A_FINALIZER = """
import os, sys
from rclpy.node import Node
from specvla_ros.nodes.run import run_node, spin

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        for _ in range(1000):
            pass

class Speaker(Node):
    def __init__(self):
        super().__init__("speaker")
        self.once = self.create_timer(0.1, self.on_timer)

    def on_timer(self):
        self.once.cancel()
        Interrupted()

    def close(self):
        print("the last word", flush=True)
        return True

run_node("speaker", Speaker, spin, [], speaks_last=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_interrupt_python_ignores_ends_the_node_all_the_same(number: signal.Signals) -> None:
    with process(INTERRUPTED_IN_A_FINALIZER, str(int(number))) as child:
        output, _ = child.communicate(timeout=PATIENCE)
    assert "Exception ignored" in output, "the interrupt fell where Python ignores it"
    assert "the last word" in output and child.returncode == 0


def test_a_parameter_file_that_is_no_ros_argument_does_not_count_for_nothing() -> None:
    code = "from specvla_ros.nodes.run import run_node; run_node('node', lambda: exit('it was built'), print, None)"
    with process(code, "--params-file", "own.yaml") as child:
        output, _ = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1
    assert "--params-file own.yaml: a node takes ROS arguments only, and those come after --ros-args" in output
