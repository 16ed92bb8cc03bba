"""Images that are lost, policies that load or decode slowly, bridges that leave: over real DDS, without a simulator."""

from __future__ import annotations

import signal
from pathlib import Path

from peer import PATIENCE, policy_process, process, wait_until
from test_libero_bridge import FAKE_SCENE, REPLAY, parameters, run_episode

LOSSY_POLICY = """
import sys
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.nodes import policy_node

class LossyNode(policy_node.PolicyNode):
    seen = 0

    def _on_image(self, message):
        LossyNode.seen += 1
        if LossyNode.seen % 3:
            super()._on_image(message)

policy_node.PolicyNode = LossyNode
policy_node.main(sys.argv, load=lambda values: FakePolicy())
"""
STUCK_SCENE = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_environment import FakeEnvironment
from specvla_ros.nodes.libero_bridge import main

class StuckEnvironment(FakeEnvironment):
    def step(self, values, render=True):
        Path(sys.argv[1]).touch()
        time.sleep(10.0)

main(sys.argv[1:], create=StuckEnvironment)
"""


def test_a_policy_that_loads_slowly_still_gets_a_fresh_first_image(tmp_path: Path) -> None:
    with policy_process("(__import__('time').sleep(2.5), FakePolicy())[1]"):
        report = run_episode(tmp_path, max_steps=3, policy_timeout=10.0)
    assert report["steps"] == 3


def test_lost_images_are_sent_again_with_a_stamp_that_is_not_stale(tmp_path: Path) -> None:
    with process(LOSSY_POLICY):
        report = run_episode(tmp_path, max_steps=20, command_timeout=0.1, policy_timeout=3.0)
    assert report["steps"] == 20 and report["counts"]["images sent again"] >= 9
    assert report["seconds"] < 6.0, "the wait for one that was lost does not grow with every other"


def test_a_slow_policy_is_not_asked_twice_for_every_frame(tmp_path: Path) -> None:
    with policy_process("FakePolicy(delay=0.25)"):
        report = run_episode(tmp_path, max_steps=8, command_timeout=0.1)
    assert report["steps"] == 8
    assert report["counts"]["images sent again"] <= 4, "0.1 s doubles to more than an action takes"


def test_a_replay_ends_with_a_sentence_when_its_bridge_leaves(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    with policy_process():
        run_episode(tmp_path, FAKE_SCENE.replace("SUCCESS", "0"), max_steps=3, bag=bag)
    stepping = tmp_path / "stepping"
    with (
        process(REPLAY, *parameters(bag=bag)) as replay,
        process(STUCK_SCENE, str(stepping), *parameters(max_steps=3)) as bridge,
    ):
        wait_until(stepping.exists)
        bridge.send_signal(signal.SIGINT)
        output, _ = replay.communicate(timeout=PATIENCE)
    assert replay.returncode == 1 and "Traceback" not in output, output
    assert "the bridge left after 1 commands" in output
