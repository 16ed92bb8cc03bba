"""How long a command takes in simulated time: given, counted from rounds, or the decoder's own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from specvla_ros.errors import ConfigurationError
from specvla_ros.policy import DecodeStats

LOCKSTEP = "lockstep"
"""The scene waits for every command."""
MEASURED = "measured"
_NUMBER = r"(\d+(?:\.\d+)?)"


@dataclass(frozen=True, slots=True)
class Latency:
    """From the start of decoding to the command, in milliseconds of simulated time.

    Attributes:
        floor: what every action takes.
        each_round: what each verification round adds.
        own: the decoder's measured time of the action instead of both; not repeatable to the last step.
    """

    floor: float = 0.0
    each_round: float = 0.0
    own: bool = False

    def nanoseconds(self, stats: DecodeStats) -> int:
        """Of one action."""
        milliseconds = stats.milliseconds["total"] if self.own else self.floor + self.each_round * stats.rounds
        return round(1e6 * milliseconds)


NO_LATENCY = Latency()


def parse_latency(text: str) -> Latency:
    """`lockstep` (no time at all), `measured`, `fixed:MS`, or `model:FLOOR_MS+ROUND_MS`: another machine, emulated.

    Raises:
        ConfigurationError: anything else.
    """
    if text == LOCKSTEP:
        return NO_LATENCY
    if text == MEASURED:
        return Latency(own=True)
    if match := re.fullmatch(rf"fixed:{_NUMBER}", text):
        return Latency(floor=float(match[1]))
    if match := re.fullmatch(rf"model:{_NUMBER}\+{_NUMBER}", text):
        return Latency(floor=float(match[1]), each_round=float(match[2]))
    raise ConfigurationError(
        f"latency {text!r} is none; expected lockstep, measured, fixed:MS, or model:FLOOR_MS+ROUND_MS, for example "
        "fixed:100 or model:60+25"
    )
