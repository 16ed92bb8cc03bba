"""From an image to a command, without a node around it: clock, stream and publishers are stand-ins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from rclpy.logging import get_logger
from stream_bench import MILLISECOND, Bench, Log

from specvla_ros.fake_policy import FakePolicy
from specvla_ros.nodes.conversion import rgb_to_image
from specvla_ros.nodes.health import ERROR, OK, WARN, Health
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

    def show(self, age: int = 0, waited: float = 0.0) -> None:
        """A bright image, stamped `age` milliseconds ago, that came `waited` seconds ago."""
        image, stamp = rgb_to_image(np.full((32, 48, 3), 255, np.uint8)), self.now - age * MILLISECOND
        image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        self.inference.work(Arrival(image, time.monotonic() - waited))

    @property
    def diagnostics(self) -> dict[str, str]:
        return {pair.key: pair.value for pair in self.health.message("specvla", Time(), {}).status[0].values}

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
    assert work.diagnostics.get("overruns: actions decoded after hold_time") == ("1" if age > 0 else None)


def test_an_action_whose_gate_closed_while_it_was_decoded_is_dropped_and_the_gates_word_stays() -> None:
    policy = Slow()
    work = Work(policy)
    policy.meanwhile = lambda: work.stream.change_gate(lambda gate: gate.with_stop(True))
    work.show()
    assert not work.commands.messages and not work.stats.messages
    level, sentence = work.status
    assert level == ERROR and "emergency stop" in sentence


def test_a_gate_that_closes_as_the_command_goes_out_has_the_last_word() -> None:
    work = Work(FakePolicy())
    publish = work.twists.publish

    def publish_and_stop(message: object) -> None:
        publish(message)
        work.stream.change_gate(lambda gate: gate.with_stop(True))

    work.twists.publish = publish_and_stop
    work.show()
    level, sentence = work.status
    assert level == ERROR and "emergency stop" in sentence


def test_an_action_whose_instruction_was_replaced_while_it_was_decoded_is_dropped_and_counted() -> None:
    policy = Slow()
    work = Work(policy)
    policy.meanwhile = lambda: work.inference.begin_episode("open the drawer", work.now)
    work.show()
    assert not work.commands.messages and not work.stats.messages and not work.statuses.messages
    assert work.diagnostics["actions that came too late"] == "1"


def test_what_waited_before_the_episode_began_again_is_not_decoded() -> None:
    work = Work(FakePolicy())
    episode = work.inference.instruction.episode
    work.inference.begin_again()
    assert work.inference.instruction.episode == episode + 1, "what is being decoded counts no longer either"
    work.show(waited=1.0)
    assert not work.commands.messages
    work.show()
    assert work.speeds == [pytest.approx(0.1)] and work.inference.instruction.text == "pick up the bowl"


def test_statistics_tell_how_long_an_image_waited_and_what_its_command_took_in_all() -> None:
    policy = Slow(lambda: time.sleep(0.05))
    work = Work(policy)
    work.show(age=30, waited=0.5)
    (stats,) = work.stats.messages
    assert 500 <= stats.queue_ms < stats.total_ms - 50 < 1000 and stats.total_ms == work.inference.progress.latency_ms
    diagnostics = work.diagnostics
    assert diagnostics["image age p50 [ms]"] == "30.0" and diagnostics["latency p50 [ms]"] == f"{stats.total_ms:.1f}"
    assert diagnostics["accept length [tokens per forward]"] == "3.50" and diagnostics["verification rounds"] == "1.00"


def test_passes_that_no_recorded_graph_served_are_counted() -> None:
    class Missing(FakePolicy):
        def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
            action = super().act(image, instruction)
            return replace(action, stats=replace(action.stats, graph_misses=3))

    work = Work(Missing())
    for _ in range(2):
        work.show()
    assert work.diagnostics["passes without a recorded CUDA graph"] == "6"


@pytest.mark.parametrize("looks_ahead", [True, False])
def test_an_image_that_waits_is_shown_to_a_policy_that_looks_ahead_and_no_error_leaves(looks_ahead: bool) -> None:
    seen = list[int]()

    class Ahead(FakePolicy):
        def look(self, image: NDArray[np.uint8]) -> None:
            seen.append(int(image[0, 0, 0]))
            raise RuntimeError

    policy = Ahead()
    policy.looks_ahead = looks_ahead
    work = Work(policy)
    work.inference.look(Arrival(rgb_to_image(np.full((32, 48, 3), 7, np.uint8)), 0.0))
    assert seen == ([7] if looks_ahead else [])


def test_progress_counts_the_actions_of_its_own_episode() -> None:
    work, progress = Work(FakePolicy()), list[tuple[int, int]]()
    for instruction in ("pick up the bowl", "open the drawer"):
        work.inference.begin_episode(instruction, work.now)
        for _ in range(2):
            work.show()
            progress.append((work.inference.progress.episode, work.inference.progress.steps))
    assert progress == [(2, 1), (2, 2), (3, 1), (3, 2)]


def test_a_hand_without_a_pose_and_a_dry_run_say_why_nothing_moves() -> None:
    for values, sentence in (({"pose_required": True}, "no ee_pose has come"), ({"dry_run": True}, "nothing moves")):
        work = Work(FakePolicy(), **values)
        work.show()
        assert work.status[0] == WARN and sentence in work.status[1]
