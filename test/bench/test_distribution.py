from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvla_ros.bench.distribution import geometric, measured, spread, tokens_per_forward_of
from specvla_ros.errors import ConfigurationError

means = st.floats(1.0, 3.5)


@given(mean=means)
def test_every_published_mean_has_a_distribution_of_whole_actions(mean: float) -> None:
    distribution = geometric(mean)
    assert tokens_per_forward_of(distribution) == pytest.approx(mean)
    assert sum(distribution.values()) == pytest.approx(1.0)
    assert all(sum(rounds) + len(rounds) == 6 for rounds in distribution), "seven tokens, the first by the prefill"


@given(mean=means, count=st.integers(30, 200))
def test_drawn_actions_keep_the_mean(mean: float, count: int) -> None:
    actions = spread(geometric(mean), count)
    assert len(actions) == count
    assert 7 * count / sum(1 + len(rounds) for rounds in actions) == pytest.approx(mean, rel=0.04)


def test_drawn_actions_are_the_same_every_time_and_not_in_order_of_length() -> None:
    actions = spread(geometric(2.0), 60)
    assert actions == spread(geometric(2.0), 60)
    assert [len(rounds) for rounds in actions] != sorted(len(rounds) for rounds in actions)


@pytest.mark.parametrize("mean", [0.9, 3.6])
def test_a_mean_that_cannot_be_is_refused(mean: float) -> None:
    with pytest.raises(ConfigurationError, match=r"expected 1 to 3\.5"):
        geometric(mean)


def written(path: Path, rows: object) -> Path:
    path.write_text(json.dumps({"rows": rows}))
    return path


def test_measured_lengths_are_those_of_rows_with_a_draft(tmp_path: Path) -> None:
    rows = [
        {"name": "greedy", "kind": "measured", "draft": "none", "accepted": [[0] * 6]},
        {"name": "hold, strict", "kind": "measured", "draft": "hold", "accepted": [[5], [5], [2, 2], [0] * 6]},
        {"name": "eagle, imposed", "kind": "imposed", "draft": "eagle", "accepted": [[5]]},
        {"name": "absent", "kind": "absent", "draft": "none"},
    ]
    found = measured(written(tmp_path / "bench.json", rows))
    assert found == {"hold, strict": {(5,): 0.5, (2, 2): 0.25, (0,) * 6: 0.25}}


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([], "no measured row with a draft"),
        ([{"kind": "measured", "draft": "hold"}], "what specvla bench wrote"),
        ([{"name": "a", "kind": "measured", "draft": "hold", "accepted": [[9]]}], "do not bring 6 tokens"),
    ],
)
def test_a_file_that_is_not_the_benchmarks_is_refused(tmp_path: Path, rows: object, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        measured(written(tmp_path / "bench.json", rows))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        measured(tmp_path / "nowhere.json")
