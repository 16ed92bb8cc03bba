from __future__ import annotations

import csv
import io

import pytest

from specvla_ros.report.numbers import ABSENT, as_numbers
from specvla_ros.report.table import Table


@pytest.mark.parametrize(
    ("heading", "cells", "columns"),
    [
        ("solved", ["4/5", ABSENT], {"solved": ["4", ""], "solved, of": ["5", ""]}),
        (
            "95 % interval",
            ["81.2 - 96.8 %", "0.0 - 1.0 %"],
            {"95 % interval, low": ["81.2", "0.0"], "95 % interval, high": ["96.8", "1.0"]},
        ),
        ("interval", ["1.11 - 1.15"], {"interval, low": ["1.11"], "interval, high": ["1.15"]}),
        ("prefill", ["4.1 / 4.5"], {"prefill, median": ["4.1"], "prefill, p95": ["4.5"]}),
        ("lost / won", ["18 / 9", ABSENT], {"lost": ["18", ""], "won": ["9", ""]}),
        ("speed-up", ["1.13x", ABSENT], {"speed-up": ["1.13", ""]}),
        ("forwards per action", ["3.04", "(4.40)"], {"forwards per action": ["3.04", "4.40"]}),
        ("p", ["1", "7.5e-09"], {"p": ["1", "7.5e-09"]}),
        ("threshold", ["3", "0,0,0,9,9,9,0"], {"threshold": ["3", "0,0,0,9,9,9,0"]}),
        ("off by", ["+7", "-2", "0"], {"off by": ["+7", "-2", "0"]}),
        ("instruction", ["open the 1/2 full drawer"], {"instruction": ["open the 1/2 full drawer"]}),
        ("steps", [ABSENT, ABSENT], {"steps": ["", ""]}),
        ("lost / won", [ABSENT], {"lost": [""], "won": [""]}),
    ],
)
def test_a_column_of_figures_becomes_columns_of_numbers(
    heading: str, cells: list[str], columns: dict[str, list[str]]
) -> None:
    assert dict(as_numbers(heading, cells)) == columns


def test_a_table_is_for_people_everywhere_but_in_its_csv() -> None:
    table = Table("x", ("draft", "solved", "speed-up"), [["hold", "4/5", "1.13x"], ["none", "5/5", ABSENT]])
    assert list(csv.reader(io.StringIO(table.csv()))) == [
        ["draft", "solved", "solved, of", "speed-up"],
        ["hold", "4", "5", "1.13"],
        ["none", "5", "5", ""],
    ]
    assert "| hold | 4/5 | 1.13x |" in table.markdown() and "<td>4/5</td>" in table.html()
