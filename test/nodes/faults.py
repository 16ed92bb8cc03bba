"""The fault matrix: what is stated for each fault, how the arm is watched, and the table of docs/reliability.md."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peer import PATIENCE, Peer, is_moving, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
QUIET = 0.5
"""Seconds without a command after which the arm is taken to be told nothing more."""

STOP = "one command without motion, then nothing"
NOTHING = "nothing"
GOES_ON = "the commands of its images"
MOVES_AGAIN = "lives; moves again when the cause is gone"
AFTER_INSTRUCTION = "lives; moves again after a new instruction"
AFTER_ENABLING = "lives; moves again once the cause is gone and ~/enable was called"
UNCONFIGURED = "lives, unconfigured"
RECONFIGURED = "lives, unconfigured; configured with less, it moves the arm"
ENDS = "ends with exit code 0, no traceback"
RESTARTED = "is gone; a new one moves the arm by the next image, without a new instruction"
EPISODE_GOES_ON = "is gone; a new one answers the frame that the bridge shows again, and the episode goes on to its end"


@dataclass(frozen=True, slots=True)
class Row:
    """One fault as the tests state it.

    Attributes:
        arm: what it received after the fault.
        user: the sentence, with … for what differs each time.
        place: where the user reads it; empty where there is nothing to read.
        node: what became of the node.
    """

    arm: str
    user: str
    node: str
    place: str = "diagnostics, log"


def _refused(user: str, node: str = MOVES_AGAIN) -> Row:
    return Row(STOP, user, node)


def _not_loaded(user: str, node: str = UNCONFIGURED) -> Row:
    return Row(NOTHING, f"the policy was not loaded, so there will be no command: {user}", node)


passed: set[str] = set()
"""The rows whose test has passed in this process."""
UNUSABLE = "unusable instruction: "
ROWS = {
    "image: unknown encoding": _refused("image 'yuv422' of 48 x 32, step 144: the encoding is not supported;"),
    "image: a depth image, all NaN": _refused("image '32FC1' of 48 x 32, step 192: the encoding is not supported;"),
    "image: no pixels": _refused("image 'rgb8' of 0 x 32, step 144: it has no pixels"),
    "image: higher than its data": _refused("image 'rgb8' of 48 x 64, step 144: 4608 bytes of data, expected 9216"),
    "image: step too small": _refused("image 'rgb8' of 48 x 32, step 10: a row needs at least 144 bytes"),
    "image: data cut short": _refused("image 'rgb8' of 48 x 32, step 144: 100 bytes of data, expected 4608"),
    "image: stamped 5 s ago": _refused("stale image: its stamp is 5.… s old,"),
    "image: stamped 5 s ahead": _refused("stale image: its stamp is -4.… s old,"),
    "image: from another camera": _refused(
        "the image's frame_id changed from '' to 'wrist_camera':", AFTER_INSTRUCTION
    ),
    "image: message cut short on the wire": Row(STOP, "no image for … s", MOVES_AGAIN, "diagnostics"),
    "no image at all": Row(NOTHING, "no image has come yet on the topic /image", MOVES_AGAIN, "diagnostics"),
    "images cease": Row(STOP, "no image for … s", MOVES_AGAIN, "diagnostics, ~/status, log"),
    "instruction: empty": _refused("no instruction: publish one on the topic instruction", AFTER_INSTRUCTION),
    "instruction: 100 kB": _refused(f"{UNUSABLE}it has 100000 characters; expected at most 1000", AFTER_INSTRUCTION),
    "instruction: not UTF-8": _refused(
        f"{UNUSABLE}'open the … drawer' was not UTF-8 text; publish it as UTF-8", AFTER_INSTRUCTION
    ),
    "instruction: changed while an action is decoded": Row(STOP, "instruction: 'open the drawer'", MOVES_AGAIN, "log"),
    "clock goes back": Row(STOP, "the clock went back: the episode begins again", MOVES_AGAIN, "diagnostics, log"),
    "clock jumps ahead by 1000 s": _refused("stale image: its stamp is 10… s old,"),
    "clock jumps ahead by 1000 s, max_instruction_age 60 s": _refused(
        "stale instruction: it came 10… s ago;", AFTER_INSTRUCTION
    ),
    "clock stands still": _refused("the clock stands still: check who publishes /clock;"),
    "emergency stop: pressed": _refused(
        "emergency stop: publish false on estop, then enable the node by its service ~/enable", AFTER_ENABLING
    ),
    "emergency stop: its publisher is lost, estop_required": _refused(
        "no emergency stop: estop_required is true, and nobody has published on estop", AFTER_ENABLING
    ),
    "another draft is loaded for 2 s": Row(STOP, "nothing: it was asked to", MOVES_AGAIN, ""),
    "policy raises": _refused("no command: the fake policy was told to fail"),
    "policy answers with NaN": _refused("no command: the action is not finite:"),
    "policy runs out of GPU memory": _refused("no command: OutOfMemoryError: CUDA out of memory"),
    "policy runs out of memory": _refused("no command: MemoryError:"),
    "out of GPU memory while loading": _not_loaded("OutOfMemoryError: CUDA out of memory", RECONFIGURED),
    "checkpoint: missing": _not_loaded("/nowhere/openvla is not a directory;"),
    "checkpoint: cut short": _not_loaded("…/model.safetensors is cut short or is no safetensors file"),
    "checkpoint: pickled": _not_loaded("… holds only pickled weights (pytorch_model.bin), which can run code;"),
    "draft: a pickle that would run code": _not_loaded(
        "…/pytorch_model.bin holds more than tensors and was not opened"
    ),
    "parameters: 300 sets, 50 to 100 a second, every other one refused": Row(
        GOES_ON,
        "Parameter threshold out of range. Min: 0, Max: 255, value: 999",
        "lives; each set is answered, the last valid one is in force",
        "answer of the set",
    ),
    "policy killed with -9 under running images": Row(NOTHING, "the diagnostics cease", RESTARTED, ""),
    "policy killed with -9 under a running bridge, lockstep": Row(
        NOTHING, "the diagnostics cease", EPISODE_GOES_ON, ""
    ),
    "bridge killed with -9 under a running policy": Row(STOP, "no image for … s", MOVES_AGAIN, "diagnostics"),
    "SIGINT while an action is decoded": Row(STOP, "nothing: it was asked to end", ENDS, ""),
    "SIGTERM while an action is decoded": Row(STOP, "nothing: it was asked to end", ENDS, ""),
    "SIGHUP while an action is decoded": Row(STOP, "nothing: it was asked to end", ENDS, ""),
}


class Arm:
    """What the arm is told from now on; it moves by one image's command, which may be repeated until the fault."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._first = len(peer.received["command"])
        moving = [command for command in peer.received["command"] if is_moving(command)]
        self._holding = moving[-1].header.stamp if moving else None

    def outcome(self, provoke: Callable[[], object] = lambda: None) -> str:
        """Once no more commands come, whatever `provoke` does meanwhile: one of the outcomes, or what came instead."""
        heard, since = self._count(), time.monotonic()
        deadline = since + PATIENCE
        while time.monotonic() - since < QUIET:
            assert time.monotonic() < deadline, "commands go on and on"
            provoke()
            time.sleep(0.05)
            if self._count() != heard:
                heard, since = self._count(), time.monotonic()
        after = self._peer.received["command"][self._first :]
        while after and is_moving(after[0]) and after[0].header.stamp == self._holding:
            after = after[1:]
        if not after:
            return NOTHING
        twist = self._peer.received["twist"][-1].twist
        is_at_rest = not is_moving(after[-1]) and (twist.linear.x, twist.angular.z) == (0.0, 0.0)
        return STOP if len(after) == 1 and is_at_rest else f"{len(after)} commands: {after}"

    def _count(self) -> int:
        return len(self._peer.received["command"])


def arm_with_an_action_in_work(peer: Peer) -> Arm:
    """A moving arm, and one more image whose action is being decoded; the policy must be slow."""
    peer.begin()
    peer.moving()
    arm = Arm(peer)
    peer.send(255)
    time.sleep(0.1)  # the action of this image is in work
    return arm


def told(row: Row, text: str) -> bool:
    """Whether the text holds the row's sentence."""
    return re.search(".*".join(map(re.escape, row.user.split("…"))), text) is not None


def wait_for_sentence(peer: Peer, row: Row, provoke: Callable[[], object] = lambda: None) -> None:
    """Until the diagnostics hold the row's sentence, doing `provoke` again and again."""

    def sentences() -> list[str]:
        return [array.status[0].message for array in peer.received["diagnostics"]]

    def found() -> bool:
        provoke()
        time.sleep(0.1)
        return any(told(row, sentence) for sentence in sentences())

    wait_until(found, lambda: f"{row.user!r} in {sentences()}")


def end(child: subprocess.Popen[str], row: Row) -> None:
    """End a node that lives; its log holds the row's sentence if that is where the user reads it."""
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0 and "Traceback" not in output, output
    assert "log" not in row.place or told(row, output), output


def page() -> str:
    """docs/reliability.md."""
    rows = [
        f"| {fault} | {row.arm} | {row.user.rstrip(',;:')}{f' ({row.place})' if row.place else ''} | {row.node} |"
        for fault, row in ROWS.items()
    ]
    return HEAD + "\n".join(rows) + "\n"


HEAD = """\
# What happens when something is wrong

Every row is a test that starts the policy node as a process of its own and talks to it over DDS
([messages](../test/nodes/test_faults.py), [processes](../test/nodes/test_faults_of_processes.py)), with a policy that
answers without a model. Where nothing else is said the fault comes while the arm moves and `hold_time` is 10 s, so that
only the fault can end the motion. A command that holds may still be repeated until the node has seen the fault. The
table is written by the tests:

```sh
SPECVLA_WRITE_RELIABILITY=1 pytest test/nodes/test_faults*.py
```

**This is not a safety-rated stop.** A node that is killed says nothing any more: the controller behind it must end a
motion by itself when commands cease, as the bridge does after its own `hold_time`. With images that cease or a bridge
that is killed, the last command ends `hold_time` (0.5 s unless set) after its image's stamp, or, where simulated time
stands still, after `hold_time` of wall time. In lockstep the scene makes no step while its policy is gone.

| fault | what the arm received | what the user sees | node afterwards |
|---|---|---|---|
"""
