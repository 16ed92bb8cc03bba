"""What a simulation in lockstep takes for the answer to its frame."""

from __future__ import annotations

import time

from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes.command_box import CommandBox


def command(stamp: int, held: bool = False, tokens: int = 31744) -> EndEffectorCommand:
    message = EndEffectorCommand(held=held, tokens=[tokens] * 7)
    message.header.stamp.nanosec = stamp
    return message


def answer(box: CommandBox, stamp: int) -> EndEffectorCommand | None:
    return box.wait_for({stamp}, 0.01, lambda: True)


def test_a_repetition_answers_its_own_frame_and_no_other() -> None:
    box = CommandBox()
    box.put(command(5, held=True))
    assert answer(box, 5) is not None and answer(box, 6) is None


def test_a_stop_answers_nothing_and_hides_no_answer_but_is_the_latest() -> None:
    box, new, stop = CommandBox(), command(5), command(5, held=True, tokens=0)
    box.put(stop)
    assert answer(box, 5) is None and box.latest() is stop
    box.put(new)
    box.put(stop)
    assert answer(box, 5) is new and box.latest() is stop


def test_a_replayed_command_without_tokens_is_an_answer() -> None:
    box = CommandBox()
    box.put(command(5, tokens=0))
    assert answer(box, 5) is not None


def test_whoever_waits_for_an_answer_gives_up_in_time_and_soon_after_it_is_to_stop() -> None:
    box, began = CommandBox(), time.monotonic()
    assert box.wait_for({5}, 0.2, lambda: True) is None and time.monotonic() - began >= 0.2
    began, running = time.monotonic(), iter([True, False])
    assert box.wait_for({5}, 5.0, lambda: next(running)) is None and time.monotonic() - began < 2.5
