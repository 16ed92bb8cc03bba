"""Real time in simulated time: the scene moves on while the policy thinks, exactly and on any machine.

The LIBERO bridge's mode `realtime` with an ideal clock. Steps begin every 50 ms, whatever the policy does. The policy
starts on the newest frame as soon as it is free; its command is in force from the first step that begins when it is
there. As on the bridge the episode begins with the first command, however long that took. Commands that take no time
are lockstep.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specvla_ros.evaluation.latency import Latency
from specvla_ros.policy import DecodeStats, Policy
from specvla_ros.sim.holding import STEP_NANOSECONDS, is_old, is_stale, without_motion
from specvla_ros.sim.libero import Frame


@dataclass(frozen=True, slots=True)
class TimedCommand:
    """A command; times in nanoseconds since the episode's begin.

    Attributes:
        values: (7,) of the action.
        stamp: when its frame was seen.
        ready: when it is there.
    """

    values: NDArray[np.float64]
    stamp: int
    ready: int


class TimedPolicy:
    """What the arm is told at each step by a policy whose commands take their time.

    Args:
        hold_time: simulated seconds after its frame for which a command holds; then the arm rests, the gripper kept.

    Attributes:
        stats: of every action so far.
        steps_held: steps with a command older than the frame before; steps_without_command: those at rest.
    """

    def __init__(self, policy: Policy, instruction: str, latency: Latency, hold_time: float) -> None:
        self.stats: list[DecodeStats] = []
        self.steps_held = 0
        self.steps_without_command = 0
        self._policy = policy
        self._instruction = instruction
        self._latency = latency
        self._hold_time = hold_time
        self._free = 0
        self._commands: deque[TimedCommand] = deque()

    def looks_at(self, step: int) -> bool:
        """Whether the policy becomes free while the frame of this step is the newest, so that it needs its image."""
        return self._free < (step + 1) * STEP_NANOSECONDS

    def values(self, frame: Frame) -> NDArray[np.float64]:
        """(7,) what the step that begins with this frame is told."""
        now = frame.step * STEP_NANOSECONDS
        if self.looks_at(frame.step):
            self._think(frame, now)
        while len(self._commands) > 1 and self._commands[1].ready <= now:
            self._commands.popleft()
        command = self._commands[0]
        age = now - command.stamp
        self.steps_held += is_old(age)
        if is_stale(age, self._hold_time):
            self.steps_without_command += 1
            return without_motion(command.values)
        return command.values

    def _think(self, frame: Frame, now: int) -> None:
        """Start on a frame, at once or when the command before is done."""
        assert frame.image is not None
        action = self._policy.act(frame.image, self._instruction)
        self.stats.append(action.stats)
        if frame.step > 0:
            self._free = max(now, self._free) + self._latency.nanoseconds(action.stats)
        self._commands.append(TimedCommand(action.values, now, self._free))
