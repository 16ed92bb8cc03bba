from __future__ import annotations

from pathlib import Path

import draft_data
import pytest
from rich.console import Console

from specvla_ros.errors import DataError
from specvla_ros.runtime import load_policy
from specvla_ros.training.accept_length import (
    AcceptLength,
    accept_length_table,
    measure_accept_lengths,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("accept_length")
    draft_data.write_target(root / "target")
    draft_data.write_demonstrations(root / "demonstrations", episodes=20, steps=4)
    return root


def test_lengths_by_draft_and_threshold(root: Path) -> None:
    policy = load_policy(root / "target", device="cpu")
    rows = measure_accept_lengths(policy, ["none", "hold", "hold+linear"], [0, 255], [root / "demonstrations"], 5)
    found = {(row.draft, row.threshold): row for row in rows}
    assert len(found) == 6
    assert all(row.frames == 5 for row in rows)
    assert found["none", 0].tokens_per_forward == found["none", 255].tokens_per_forward == 1.0
    # Every draft token is admitted, so an action that has a last one takes two forwards. The five frames are three of
    # one episode and two of the other, and the first of each has none: 2 x 7 + 3 x 2 forwards.
    assert found["hold", 255].forwards == 20
    assert found["hold", 0].mean_deviation == 0.0
    assert found["hold", 255].mean_deviation > 0.0
    assert all(row.tokens_per_forward >= 1.0 for row in rows)


def test_without_held_out_episodes_nothing_is_measured(root: Path, tmp_path: Path) -> None:
    draft_data.write_demonstrations(tmp_path, episodes=2, steps=3)
    with pytest.raises(DataError, match="no held-out episodes"):
        measure_accept_lengths(load_policy(root / "target", device="cpu"), ["none"], [0], [tmp_path], 5)


def test_the_table_has_a_line_a_draft_and_a_column_a_threshold() -> None:
    rows = [
        AcceptLength("none", 0, 10, 70),
        AcceptLength("none", 9, 10, 70),
        AcceptLength("hold", 0, 10, 35),
        AcceptLength("hold", 9, 10, 20, 140),
    ]
    console = Console(record=True, width=80)
    console.print(accept_length_table(rows))
    lines = [line.strip("│┃ ").replace("┃", "│") for line in console.export_text().splitlines()]
    cells = [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]
    assert cells == [["draft", "strict", "r = 9"], ["none", "1.00", "1.00"], ["hold", "2.00", "3.50"]]
    assert rows[-1].to_dict() == {
        "draft": "hold",
        "threshold": 9,
        "frames": 10,
        "forwards": 20,
        "tokens_per_forward": 3.5,
        "mean_deviation": 2.0,
    }
