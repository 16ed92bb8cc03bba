"""How long a command takes in simulated time: given, counted from rounds, or the decoder's own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from specvla_ros.errors import ConfigurationError
from specvla_ros.policy import PLAIN, DecodeStats

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

    def milliseconds(self, rounds: float, measured: float) -> float:
        """Of an action of so many rounds, or on average; `measured` is what its decoder took."""
        return measured if self.own else self.floor + self.each_round * rounds

    def nanoseconds(self, stats: DecodeStats) -> int:
        """Of one action."""
        return round(1e6 * self.milliseconds(stats.rounds, stats.milliseconds["total"]))


NO_LATENCY = Latency()


def model_from_benchmark(text: str) -> tuple[str, str]:
    """`model:FILE` or `model:FILE#ROW` as `model:FLOOR_MS+ROUND_MS`, by the means of a row of a benchmark's bench.json,
    and in words which row of what that is.

    A round is its draft and its verification, and everything else is the floor; plain greedy decoding is charged the
    same for each of its rounds, more than it takes. Without a row's name the first one that drafts counts. Any other
    text stays as it is, without words.

    Raises:
        ConfigurationError: the file is no benchmark, or has no such row.
    """
    kind, _, place = text.partition(":")
    name, _, wanted = place.partition("#")
    if kind != "model" or not name.endswith(".json"):
        return text, ""
    try:
        bench = json.loads(Path(name).read_text())
        rows = bench["rows"]
        drafting = [row for row in rows if row["draft"] != PLAIN and row.get("milliseconds")]
        row = next(row for row in drafting if wanted in ("", row["name"]))
        times = {phase: float(part["mean"]) for phase, part in row["milliseconds"].items()}
        drafts_and_verifies = times["draft"] + times["verify"]
        each_round = drafts_and_verifies / (float(row["forwards"]) - 1.0)
        weights = ", random weights" if bench["random_weights"] else ""
        source = f'{name}, row "{row["name"]}": {bench["model"]}{weights}, {bench["dtype"]} on {bench["device"]}'
        model = f"model:{times['total'] - drafts_and_verifies:.2f}+{each_round:.2f}"
        parse_latency(model)  # nothing negative, and no NaN
        return model, source
    except OSError as error:
        raise ConfigurationError(f"latency {text!r}: {name} cannot be read ({error.strerror})") from error
    except StopIteration as error:
        names = ", ".join(str(row["name"]) for row in drafting) or "none"
        raise ConfigurationError(f"latency {text!r}: no such row in {name}; those that draft: {names}") from error
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, ConfigurationError) as error:
        raise ConfigurationError(f"latency {text!r}: {name} is no bench.json of specvla bench") from error


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
