from __future__ import annotations

import pytest

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.latency import parse_latency
from specvla_ros.policy import DecodeStats

STATS = DecodeStats((2, 0, 1), 4, (0, 0, 0, 0, 0, 0, 0), {"verify": 3.0, "total": 7.5})


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("lockstep", 0.0),
        ("fixed:120", 120.0),
        ("fixed:0.5", 0.5),
        ("model:60+25", 60.0 + 3 * 25.0),
        ("measured", 7.5),
    ],
)
def test_a_command_takes_what_the_words_say(text: str, milliseconds: float) -> None:
    assert parse_latency(text).nanoseconds(STATS) == 1e6 * milliseconds


@pytest.mark.parametrize("text", ["", "fixed", "fixed:-5", "fixed:5ms", "model:60", "model:60+", "100", "fixed:1e9"])
def test_other_words_are_refused_with_those_that_exist(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected lockstep, measured, fixed:MS, or model:FLOOR_MS"):
        parse_latency(text)
