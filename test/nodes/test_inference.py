"""From an image to a command, without a node around it: clock, stream and publishers are stand-ins."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from rclpy.logging import get_logger
from test_command_stream import MILLISECOND, Bench, Log

from specvla_ros.fake_policy import FakePolicy
from specvla_ros.nodes.conversion import rgb_to_image
from specvla_ros.nodes.health import OK, WARN, Health
from specvla_ros.nodes.inference import Inference
from specvla_ros.nodes.inputs import Arrival
from specvla_ros.nodes.reporter import Reporter
from specvla_ros.policy import Action


class Slow(FakePolicy):
    """Something happens while it decodes."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        action = super().act(image, instruction)
        self.meanwhile()
        return action


class Work(Bench):
    """A stream and what decodes for it, with an instruction given."""

    def __init__(self, policy: FakePolicy, **values: object) -> None:
        super().__init__(**values)
        self.statuses, self.stats, self.health = Log(), Log(), Health("loading")
        reporter = Reporter("specvla", self.health, get_logger("specvla"), self.statuses, self.stream.rest)
        self.inference = Inference(lambda: self.now, self.stream, self.stats, Log(), self.health, reporter)
        self.inference.policy = policy
        self.inference.begin_episode("pick up the bowl", self.now)

    def show(self, age: int = 0) -> None:
        """A bright image, stamped `age` milliseconds ago."""
        image, stamp = rgb_to_image(np.full((32, 48, 3), 255, np.uint8)), self.now - age * MILLISECOND
        image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        self.inference.work(Arrival(image, 0.0))

    @property
    def status(self) -> tuple[bytes, str]:
        return self.statuses.messages[-1].level, self.statuses.messages[-1].message


def test_the_policy_forgets_the_episode_before_at_the_first_image_of_each_and_at_no_other() -> None:
    policy = FakePolicy()
    work, resets = Work(policy), list[int]()
    for instruction in ("pick up the bowl", "open the drawer"):
        work.inference.begin_episode(instruction, work.now)
        for _ in range(2):
            work.show()
            resets.append(policy.resets)
    assert resets == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("limit", "sentence"), [("max_image_age", "stale image"), ("max_instruction_age", "stale instruction")]
)
def test_what_grew_stale_while_it_was_decoded_gives_no_command(limit: str, sentence: str) -> None:
    policy = Slow()
    work = Work(policy, **{limit: 0.3, "hold_time": 10.0})
    work.show()
    assert work.speeds == [pytest.approx(0.1)]
    policy.meanwhile = lambda: setattr(work, "now", work.now + 400 * MILLISECOND)
    work.show()
    assert work.speeds == [pytest.approx(0.1), 0.0] and sentence in work.status[1]


@pytest.mark.parametrize(("age", "advice"), [(300, "decode faster"), (-300, "check the camera's clock")])
def test_an_arm_that_does_not_move_by_an_images_stamp_is_told_with_what_to_do(age: int, advice: str) -> None:
    work = Work(FakePolicy(), hold_time=0.2)
    work.show()
    assert work.status == (OK, "publishing commands")
    work.show(age)
    assert work.twists.messages[-1].twist.linear.x == 0.0
    level, sentence = work.status
    assert level == WARN and "the arm does not move" in sentence and advice in sentence
