from __future__ import annotations

from specvla_ros.report.table import SHORT, Table


def test_a_long_table_may_be_broken_over_pages_and_a_short_one_not() -> None:
    short, long = (Table("x", ("draft",), [["hold"]] * count).html() for count in (SHORT, SHORT + 1))
    assert 'class="scroll short"' in short and 'class="scroll"' in long


def test_a_threshold_of_seven_numbers_is_not_broken_and_an_instruction_is() -> None:
    html = Table("x", ("threshold", "what"), [["0,0,0,9,9,9,0", "pick it up"]], text_columns=2).html()
    assert '<td class="text word">0,0,0,9,9,9,0</td><td class="text">pick it up</td>' in html
