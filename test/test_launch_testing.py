"""policy.launch.py under launch_testing, as pytest and `colcon test` run it where a whole ROS 2 is installed."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "launch_testing", reason="launch_testing is in no package registry; it comes with a ROS 2 installation"
)

from installation import NOT_INSTALLED, installed

if not installed():
    pytest.skip(NOT_INSTALLED, allow_module_level=True)

import launch_testing.actions
import launch_testing.asserts
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from peer import PATIENCE, running_peer, wait_until

from launch import LaunchDescription

POLICY = Path(__file__).parents[1] / "launch" / "policy.launch.py"
ARGUMENTS = {"policy": "fake", "dry_run": "false", "image_topic": "camera/image_raw"}


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    """The launch file with the fake policy; the tests begin at once and wait for what they need."""
    source = PythonLaunchDescriptionSource(str(POLICY))
    policy = IncludeLaunchDescription(source, launch_arguments=ARGUMENTS.items())
    return LaunchDescription([policy, launch_testing.actions.ReadyToTest()])


class TestLaunchedPolicy(unittest.TestCase):
    """While it runs."""

    def test_it_answers_an_image_with_a_command_and_moves_the_arm(self, proc_output: Any) -> None:
        proc_output.assertWaitFor("policy loaded in", timeout=PATIENCE)
        with running_peer() as peer:
            peer.images = peer.create_publisher(peer.images.msg_type, ARGUMENTS["image_topic"], 1)
            wait_until(lambda: peer.images.get_subscription_count() == 1)
            peer.instruct()
            assert peer.command_for(peer.send(100))
            wait_until(lambda: bool(peer.received["twist"]))


@launch_testing.post_shutdown_test()
class TestPolicyAfterShutdown(unittest.TestCase):
    """When launch has ended it."""

    def test_it_ended_cleanly(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
