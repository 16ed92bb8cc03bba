from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from stand_ins import result

from specvla_ros.evaluation.tables import markdown_table, summarise, summary_dict, terminal_table, write_summary

RESULTS = [result(1, 0, True, 20), result(0, 0, True, 10), result(0, 1, False, 30)]


def test_tasks_are_summed_up_in_order_and_the_total_pools_them() -> None:
    first, second, total = summarise(RESULTS)
    assert (first.task, first.language, first.solved, first.episodes, first.steps) == ("0", "do task 0", 1, 2, 20.0)
    assert (second.task, second.solved, second.episodes) == ("1", 1, 1)
    assert (total.task, total.language, total.solved, total.episodes, total.steps) == ("all", "libero_object", 2, 3, 20)
    assert total.interval == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert total.tokens_per_forward == 3.5 and total.drafts_per_round == 5 and total.deviation == 0.5
    assert total.forwards_per_action == 2 and (total.median_ms, total.p95_ms) == (3.0, 4.0)


def test_solved_episodes_have_a_length_of_their_own() -> None:
    first, second, total = summarise([*RESULTS[:2], result(0, 1, False, 90)])
    assert (first.steps, first.steps_solved, second.steps_solved) == (50.0, 10.0, 20.0)
    assert (total.steps, total.steps_median, total.steps_solved) == (40.0, 20.0, 15.0)
    assert summarise([result(0, 0, False)])[-1].steps_solved is None


def test_a_long_episodes_actions_count_as_much_as_a_short_ones() -> None:
    plain = result(0, 1, steps=30)
    changed = {"forwards": 210, "accepted": (180,), "deviations": (0.0,) * 7}
    plain = type(plain).from_dict({**plain.to_dict(), **changed})
    total = summarise([result(0, 0, steps=10), plain])[-1]
    assert total.tokens_per_forward == pytest.approx(7 * 40 / 230)
    assert total.deviation == pytest.approx(0.125) and total.drafts_per_round == pytest.approx(50 / 190)


def test_markdown_is_a_table_with_the_total_in_bold() -> None:
    lines = markdown_table(summarise(RESULTS)).splitlines()
    assert lines[0] == "| task | instruction | solved | 95 % interval | steps | tokens per forward |"
    assert lines[2] == "| 0 | do task 0 | 1/2 | 9.5 - 90.5 % | 20.0 | 3.50 |"
    assert lines[-1].startswith("| **all** | **libero_object** | **2/3** | **20.8 - 93.9 %** |")
    assert {line.count("|") for line in lines} == {7}


def test_the_terminals_table_shows_the_same(tmp_path: Path) -> None:
    console = Console(width=100, record=True, quiet=False, file=(tmp_path / "screen").open("w"))
    console.print(terminal_table(summarise(RESULTS)))
    text = console.export_text()
    assert "do task 0" in text and "1/2" in text and "9.5 - 90.5 %" in text and "2/3" in text


def test_the_summary_is_written_for_programs_and_model_cards(tmp_path: Path) -> None:
    summaries = summarise(RESULTS)
    write_summary(summaries, tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written == json.loads(json.dumps(summary_dict(summaries)))
    assert [row["task"] for row in written["tasks"]] == ["0", "1"] and written["total"]["episodes"] == 3
    assert (tmp_path / "summary.md").read_text() == markdown_table(summaries)
