from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.latency import model_from_benchmark, parse_latency
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


COMMITTED = Path(__file__).parents[2] / "benchmarks" / "cpu_small" / "bench.json"


def test_a_delay_model_is_taken_from_a_benchmarks_row_and_gives_that_rows_mean_time_back() -> None:
    row = next(row for row in json.loads(COMMITTED.read_text())["rows"] if row["name"] == "hold, strict")
    model, source = model_from_benchmark(f"model:{COMMITTED}#hold, strict")
    assert model == model_from_benchmark(f"model:{COMMITTED}")[0], "the first row that drafts"
    assert source == f'{COMMITTED}, row "hold, strict": the package\'s own, float32 on cpu'
    latency = parse_latency(model)
    mean = latency.floor + latency.each_round * (row["forwards"] - 1.0)
    assert mean == pytest.approx(row["milliseconds"]["total"]["mean"], abs=0.02)


@pytest.mark.parametrize("text", ["lockstep", "fixed:100", "model:60+25"])
def test_other_latencies_stay_as_they_are(text: str) -> None:
    assert model_from_benchmark(text) == (text, "")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"milliseconds": [1.0, 2.0]}, "is no bench.json"),
        ({"milliseconds": {"total": {"mean": 10**400}}}, "is no bench.json"),
        ({"forwards": 0.5}, "is no bench.json"),
        ({"forwards": float("nan")}, "is no bench.json"),
        ({"name": 7}, "those that draft: 7"),
    ],
)
def test_a_benchmark_that_was_edited_by_hand_is_refused_by_name(
    tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    bench = json.loads(COMMITTED.read_text())
    row = next(row for row in bench["rows"] if row["name"] == "hold, strict")
    file = tmp_path / "edited.json"
    file.write_text(json.dumps({**bench, "rows": [{**row, **changed}]}))
    with pytest.raises(ConfigurationError, match=reason) as refused:
        model_from_benchmark(f"model:{file}#hold, strict")
    assert str(file) in str(refused.value)


def test_a_file_that_is_no_benchmark_or_lacks_the_row_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    for text, reason in [
        (f"model:{tmp_path}/none.json", "cannot be read"),
        (f"model:{tmp_path}/other.json", "is no bench.json"),
        (f"model:{COMMITTED}#hold, r = 999", "those that draft: hold, strict"),
    ]:
        with pytest.raises(ConfigurationError, match=reason):
            model_from_benchmark(text)
