"""What leaves the node, moment by moment, without a node around it: clock and publishers are stand-ins."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_bench import MILLISECOND, START, Bench

from specvla_ros.errors import ConfigurationError
from specvla_ros.nodes.clock_watch import ClockWatch
from specvla_ros.nodes.messages import nanoseconds
from specvla_ros.nodes.settings import Settings


def test_a_command_is_repeated_until_its_image_is_too_old_then_comes_to_rest_once() -> None:
    bench = Bench()
    assert bench.send(0.5, age=40)
    for _ in range(9):
        bench.wait(40)
    assert bench.speeds == [0.5] * 5 + [0.0], "new, 40, 80, 120 and 160 ms after it; then the stop; then nothing"
    assert [command.held for command in bench.commands.messages] == [False] + [True] * 5
    ages = [command.age for command in bench.commands.messages]
    assert ages == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2, 0.24])
    assert len({command.header.stamp.nanosec for command in bench.commands.messages}) == 1
    assert {command.sequence for command in bench.commands.messages} == {1}
    assert list(bench.last.tokens) == [0] * 7 and bench.last.gripper == 1.0
    assert [twist.twist.linear.x for twist in bench.twists.messages] == bench.speeds
    assert bench.counts.count("commands repeated") == 4 and bench.counts.count("commands that expired") == 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(-400, 400)),
            st.tuples(st.just("wait"), st.integers(0, 150)),
            st.tuples(st.just("rest"), st.just(0)),
        ),
        max_size=40,
    )
)
def test_nothing_is_repeated_beyond_its_time_and_rest_is_said_once(events: list[tuple[str, int]]) -> None:
    bench = Bench()
    for event, value in events:
        {"send": lambda v: bench.send(0.3, age=v), "wait": bench.wait, "rest": lambda _: bench.stream.rest()}[event](
            value
        )
    for command, following in pairwise([*bench.commands.messages, None]):
        moves = command.delta_position.x != 0.0
        assert not (command.held and moves and abs(command.age) > 0.2)
        if not moves:
            assert command.held and (following is None or not following.held), "one stop, then nothing until an action"
    bench.wait(1000)
    assert not bench.speeds or bench.speeds[-1] == 0.0, "at the end it rests"


@pytest.mark.parametrize("switch", ["with_stop", "with_enabled", "with_active"])
def test_a_gate_that_closes_stops_at_once_and_lets_nothing_through(switch: str) -> None:
    bench = Bench()
    bench.send(0.5, gripper=0.0)
    bench.stream.change_gate(lambda gate: getattr(gate, switch)(switch == "with_stop"))
    assert bench.speeds == [0.5, 0.0] and bench.last.gripper == 0.0, "the gripper keeps what it holds"
    assert not bench.send(0.5)
    bench.wait(10)
    assert bench.speeds == [0.5, 0.0] and len(bench.twists.messages) == 2


def test_a_gate_that_stays_as_it_was_tells_the_arm_nothing() -> None:
    bench = Bench()
    bench.send(0.5)
    bench.stream.change_gate(lambda gate: gate.with_stop(False))
    assert bench.speeds == [0.5], "a button that says again and again that it is not pressed stops nothing"
    for _ in range(2):
        bench.stream.change_gate(lambda gate: gate.with_stop(True))
    bench.stream.change_gate(lambda gate: gate.with_active(False))
    assert bench.speeds == [0.5, 0.0]


def test_every_axis_and_the_tokens_reach_their_place_and_each_action_has_the_next_number() -> None:
    bench = Bench(linear_scale=10.0, angular_scale=100.0)
    bench.send(0.1, 0.2, 0.3, 0.01, 0.02, 0.03, gripper=0.75)
    bench.send(0.1)
    command, twist = bench.commands.messages[0], bench.twists.messages[0]
    position, rotation = command.delta_position, command.delta_rotation
    assert (position.x, position.y, position.z) == (0.1, 0.2, 0.3)
    assert (rotation.x, rotation.y, rotation.z, command.gripper) == (0.01, 0.02, 0.03, 0.75)
    assert list(command.tokens) == [1, 2, 3, 4, 5, 6, 7] and list(command.thresholds) == [0, 1, 2, 3, 4, 5, 6]
    linear, angular = twist.twist.linear, twist.twist.angular
    assert (linear.x, linear.y, linear.z) == pytest.approx((1.0, 2.0, 3.0))
    assert (angular.x, angular.y, angular.z) == pytest.approx((1.0, 2.0, 3.0))
    assert [command.sequence for command in bench.commands.messages] == [1, 2]


def test_a_twist_bears_the_time_at_which_it_is_sent_and_a_command_that_of_its_image() -> None:
    bench = Bench()
    bench.send(0.5, age=40)
    bench.wait(100)
    for twist, late in zip(bench.twists.messages, (0, 100), strict=True):
        assert nanoseconds(twist.header.stamp) == START + late * MILLISECOND and twist.header.frame_id == "base_link"
    assert {nanoseconds(command.header.stamp) for command in bench.commands.messages} == {START - 40 * MILLISECOND}


def test_an_arm_that_was_never_told_anything_gets_a_twist_at_rest_and_no_gripper() -> None:
    bench = Bench()
    assert bench.stream.repeat(), "nothing holds, so nothing can have ended"
    bench.stream.change_gate(lambda gate: gate.with_active(False))
    assert not bench.commands.messages
    assert [twist.twist.linear.x for twist in bench.twists.messages] == [0.0] and not bench.grippers.messages


def test_an_action_of_an_earlier_episode_moves_nothing() -> None:
    bench = Bench()
    bench.send(0.5)
    bench.stream.begin_episode(1)
    assert bench.speeds == [0.5, 0.0]
    assert not bench.send(0.4, episode=0) and bench.send(0.3, episode=1)
    assert bench.speeds == [0.5, 0.0, 0.3]


def test_the_grippers_opening_is_a_position_of_its_joints_which_a_stop_leaves_as_it_is() -> None:
    bench = Bench(gripper_closed=0.01, gripper_open=0.05)
    bench.send(0.1, gripper=1.0)
    bench.send(0.1, gripper=0.0)
    bench.send(0.1, gripper=0.5)
    bench.stream.rest()
    positions = [list(message.data) for message in bench.grippers.messages]
    assert positions == [[pytest.approx(0.05)], [pytest.approx(0.01)], *[positions[2]] * 2]


def test_a_dry_run_marks_commands_sends_no_twist_and_neither_its_beginning_nor_its_end_moves_anything() -> None:
    bench = Bench()
    bench.send(0.5)
    bench.change(dry_run=True)
    assert bench.speeds == [0.5, 0.0] and not bench.last.dry_run, "the stop is in earnest"
    assert bench.twists.messages[-1].twist.linear.x == 0.0
    twists = len(bench.twists.messages)
    bench.send(0.4)
    bench.wait(10)
    assert bench.last.dry_run and bench.speeds[-1] == 0.4 and len(bench.twists.messages) == twists
    bench.change(dry_run=False)
    bench.wait(10)
    assert bench.last.dry_run and bench.speeds[-1] == 0.0, "what was decoded dry does not hold in earnest"
    assert len(bench.twists.messages) == twists
    assert len(bench.grippers.messages) == 2, "what went out before the dry run began"


@given(
    st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=20),
    st.floats(0.01, 1.0),
    st.floats(0.01, 1.0),
)
def test_speed_and_change_of_what_goes_out_stay_within_their_limits(
    wishes: list[float], speed: float, change: float
) -> None:
    bench = Bench(speed_limits=[speed] * 6, change_limits=[change] * 6)
    for wish in wishes:
        bench.send(wish)
    out = np.array([0.0, *bench.speeds])
    assert (np.abs(out) <= speed).all() and (np.abs(np.diff(out)) <= change + 1e-12).all()


def test_a_speed_limit_that_is_lowered_counts_at_once() -> None:
    bench = Bench(change_limits=[0.1] * 6)
    for _ in range(10):
        bench.send(0.9)
    bench.change(speed_limits=[0.2] * 6)
    bench.wait(10)
    assert bench.speeds[-1] == 0.2, "for the command that holds"
    bench.send(0.9)
    assert bench.speeds[-1] == 0.2


def test_after_a_stop_the_change_is_limited_from_rest() -> None:
    bench = Bench(change_limits=[0.1] * 6)
    for _ in range(3):
        bench.send(0.9)
    bench.stream.rest()
    bench.send(0.9)
    assert bench.speeds == pytest.approx([0.1, 0.2, 0.3, 0.0, 0.1])


def test_the_box_follows_the_hand_while_a_command_is_repeated() -> None:
    bench = Bench(workspace_low=[-1.0] * 3, workspace_high=[1.0] * 3)
    assert "no ee_pose has come" in bench.stream.workspace_trouble()
    bench.pose(0.3)
    assert bench.stream.workspace_trouble() == ""
    bench.send(0.5)
    for x in (0.6, 0.9, 1.0, 1.2):
        bench.pose(x)
        bench.wait(10)
    assert bench.speeds == pytest.approx([0.5, 0.4, 0.1, 0.0, 0.0])
    bench.pose(1.2)
    bench.send(-0.5)
    assert bench.speeds[-1] == -0.5, "the way back is open"


@pytest.mark.parametrize(
    ("pose", "part"),
    [
        ({"x": 0.0, "age": 900}, "0.900 s old; the limit max_pose_age is 0.5 s"),
        ({"x": 0.0, "frame": "camera"}, "in the frame 'camera' instead of twist_frame 'base_link'"),
        ({"x": float("nan")}, "not finite"),
    ],
)
def test_a_hand_whose_pose_cannot_be_trusted_does_not_move(pose: dict[str, Any], part: str) -> None:
    bench = Bench()
    bench.pose(**pose)
    assert part in bench.stream.workspace_trouble()
    bench.send(0.5)
    bench.wait(10)
    assert bench.speeds == [0.0, 0.0]


def test_what_the_gripper_holds_is_debounced_across_episodes_too() -> None:
    bench = Bench(gripper_decisions=2)
    bench.send(0.1, gripper=1.0)
    bench.send(0.1, gripper=0.0)
    assert bench.last.gripper == 1.0
    bench.stream.begin_episode(1)
    bench.send(0.1, gripper=0.0, episode=1)
    assert bench.last.gripper == 1.0, "one decision of the new episode is one"
    bench.send(0.1, gripper=0.0, episode=1)
    assert bench.last.gripper == 0.0


@given(st.lists(st.floats(-2.0, 8.0), min_size=1, max_size=10))
def test_the_gripper_is_never_told_to_open_or_close_further_than_it_goes(openings: list[float]) -> None:
    bench = Bench(gripper_closed=0.0, gripper_open=0.04)
    for opening in openings:
        bench.send(0.1, gripper=opening)
    assert all(0.0 <= command.gripper <= 1.0 for command in bench.commands.messages)
    assert all(0.0 <= message.data[0] <= 0.04 for message in bench.grippers.messages)


def test_a_gripper_keeps_what_it_holds_while_nothing_may_move_for_want_of_a_pose() -> None:
    bench = Bench()
    bench.pose(0.0)
    bench.send(0.5, gripper=0.0)
    bench.pose(0.0, age=900)
    told = len(bench.grippers.messages)
    bench.send(0.5, gripper=1.0)
    bench.wait(10)
    assert bench.last.gripper == 0.0 and len(bench.grippers.messages) == told
    bench.pose(0.0)
    bench.send(0.5, gripper=1.0)
    assert bench.last.gripper == 1.0 and len(bench.grippers.messages) == told + 1


def test_a_hand_that_must_have_a_pose_does_not_move_before_it_has_one() -> None:
    bench = Bench(pose_required=True)
    assert bench.stream.workspace_trouble() == "no motion: no ee_pose has come"
    bench.send(0.5)
    assert bench.speeds == [0.0] and not bench.grippers.messages
    bench.pose(0.0)
    bench.send(0.5)
    assert bench.speeds == [0.0, 0.5]


@pytest.mark.parametrize("age", [201, 900, -900])
def test_an_action_that_comes_when_it_no_longer_holds_is_told_and_moves_no_arm(age: int) -> None:
    bench = Bench()
    assert bench.send(0.5, age=age)
    bench.wait(10)
    assert bench.speeds == [0.5, 0.0] and abs(bench.commands.messages[0].age) > 0.2
    assert all(twist.twist.linear.x == 0.0 for twist in bench.twists.messages)
    assert len(bench.grippers.messages) == 1, "the stop's, which keeps what it holds"


def test_settings_that_cannot_be_are_refused_and_name_themselves() -> None:
    bench = Bench()
    before = bench.stream.settings
    for values, part in [
        ({"speed_limits": [1.0] * 5}, "speed_limits has 5 values; expected 6"),
        ({"speed_limits": [float("nan")] * 6}, "speed_limits is nan, out of range"),
        ({"change_limits": [-0.1] * 6}, "change_limits is -0.1, out of range"),
        ({"workspace_low": [1.0] * 3, "workspace_high": [1.0, 2.0, 2.0]}, "is not below workspace_high"),
        ({"hold_time": float("nan")}, "hold_time is nan"),
    ]:
        with pytest.raises(ConfigurationError, match=part):
            Settings.from_values(bench.values | values)
    assert bench.stream.settings is before


def test_a_clock_that_goes_back_is_noticed_once() -> None:
    watch = ClockWatch()
    assert [watch.went_back(now) for now in (5, 7, 7, 3, 4)] == [False, False, False, True, False]


class Wall:
    """A wall clock in the test's hand, and beside it the simulated one of a bench."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        for module in ("clock_watch", "command_stream"):
            monkeypatch.setattr(f"specvla_ros.nodes.{module}.time.monotonic", lambda: self.seconds)
        self.bench = Bench()

    def goes_on(self, seconds: float, step: float = 0.0, every: float = 1.0) -> None:
        """Wall time, the timer at 50 Hz, and `step` seconds of simulated time `every` so many seconds."""
        for tick in range(1, round(seconds * 50) + 1):
            self.seconds += 0.02
            if tick % round(every * 50) == 0:
                self.bench.now += round(step * 1e9)
            self.bench.stream.repeat()


def in_steps(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """A simulation whose clock has moved once a second for three seconds, and now a command."""
    wall = Wall(monkeypatch)
    wall.goes_on(3.0, step=0.05, every=1.0)
    wall.bench.send(0.5)
    return wall


def test_a_command_ends_hold_time_of_wall_time_after_simulated_time_has_ceased(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    wall.goes_on(1.0, step=0.04, every=0.04)
    wall.bench.send(0.5)
    wall.goes_on(0.12, step=0.04, every=0.04)
    wall.goes_on(0.18)
    assert wall.bench.speeds[-1] == 0.5
    wall.goes_on(0.06)
    assert wall.bench.speeds[-1] == 0.0 and wall.bench.speeds.count(0.0) == 1
    wall.bench.send(0.4)
    assert wall.bench.speeds[-1] == 0.4 and wall.bench.stream.repeat(), "a new image's command counts from now"
    wall.seconds += 0.3
    assert not wall.bench.stream.repeat() and wall.bench.speeds[-1] == 0.0


def test_the_first_command_after_a_clock_that_was_shown_once_holds_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    wall.bench.stream.repeat()
    wall.bench.send(0.5)
    wall.goes_on(0.24)
    assert wall.bench.speeds[-1] == 0.0


def test_a_command_holds_as_long_in_a_slow_simulation_whether_its_clock_creeps_or_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    creeping = Wall(monkeypatch)
    creeping.goes_on(0.2, step=0.002, every=0.02)
    creeping.bench.send(0.5)
    creeping.goes_on(1.96, step=0.002, every=0.02)
    assert creeping.bench.speeds[-1] == 0.5, "0.2 s at a tenth of real time are 2 s"
    creeping.goes_on(0.1, step=0.002, every=0.02)
    assert creeping.bench.speeds[-1] == 0.0
    stepping = in_steps(monkeypatch)
    stepping.goes_on(3.98, step=0.05, every=1.0)
    assert stepping.bench.speeds[-1] == 0.5, "its clock stands for longer than hold_time, as it usually does"
    stepping.goes_on(2.2)
    assert stepping.bench.speeds[-1] == 0.0, "three steps are missing"


def test_one_pause_of_the_simulation_does_not_make_the_next_standstill_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    wall.goes_on(1.0, step=0.04, every=0.04)
    wall.goes_on(4.0)
    wall.goes_on(0.04, step=0.04, every=0.04)
    wall.bench.send(0.5)
    wall.goes_on(0.24)
    assert wall.bench.speeds[-1] == 0.0


def test_a_simulation_may_take_nearly_twice_its_usual_step_but_what_is_usual_has_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uneven = in_steps(monkeypatch)
    uneven.goes_on(1.9)
    assert uneven.bench.speeds[-1] == 0.5
    uneven.goes_on(0.2)
    assert uneven.bench.speeds[-1] == 0.0
    paused = Wall(monkeypatch)
    for _ in range(3):
        paused.goes_on(0.04, step=0.04, every=0.04)
        paused.goes_on(30.0)
    paused.goes_on(0.04, step=0.04, every=0.04)
    paused.bench.send(0.5)
    paused.goes_on(9.9)
    assert paused.bench.speeds[-1] == 0.5
    paused.goes_on(0.3)
    assert paused.bench.speeds[-1] == 0.0, "two steps of 5 s are missing, not two of 30 s"
