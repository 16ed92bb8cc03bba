from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from reference import CASES, needs_reference

from specvla_ros.errors import CheckpointError
from specvla_ros.vla.actions import ActionTokenizer, NormStats, select_norm_stats

TOKENIZER = ActionTokenizer(32000)
HERE = Path("checkpoint")
LIBERO = {"action": {"q01": [-1.0] * 7, "q99": [1.0, 1, 1, 1, 1, 1, 1], "mask": [True] * 6 + [False]}}


@needs_reference
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("key", "name"), [("libero_goal", "action_libero"), ("bridge_orig", "action_bridge")])
def test_tokens_become_the_public_implementations_actions(case: str, key: str, name: str) -> None:
    arrays = reference.values("openvla_tiny")
    norm_stats = json.loads((reference.ROOT / "openvla_tiny/dataset_statistics.json").read_text())
    _, stats = select_norm_stats(norm_stats, key, HERE)
    values = stats.unnormalise(TOKENIZER.decode(arrays[f"{case}/action_tokens"].tolist()))
    assert np.abs(values - arrays[f"{case}/{name}"]).max() <= 1e-12


def test_the_end_ids_stand_for_the_end_bins() -> None:
    top, also_top, bottom = TOKENIZER.decode([31744, 31745, 31999])
    assert top == also_top == pytest.approx(0.99608, abs=1e-5)
    assert bottom == pytest.approx(-0.99608, abs=1e-5)


@given(token=st.integers(31745, 31999))
def test_a_bins_centre_encodes_back_to_its_token(token: int) -> None:
    assert TOKENIZER.encode(TOKENIZER.decode([token])) == [token]


@given(values=st.lists(st.floats(-3, 3), min_size=1, max_size=7))
def test_any_value_encodes_to_an_action_token_half_a_bin_away_at_most(values: list[float]) -> None:
    tokens = TOKENIZER.encode(values)
    assert all(31744 <= token <= 31999 for token in tokens)
    assert np.abs(TOKENIZER.decode(tokens) - np.clip(values, -1, 1)).max() <= 1 / 255 + 1e-12


@given(tokens=st.lists(st.integers(31744, 31999), min_size=2, max_size=2))
def test_a_higher_id_is_a_lower_value(tokens: list[int]) -> None:
    low, high = TOKENIZER.decode(sorted(tokens, reverse=True))
    assert low <= high


@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7), st.lists(st.floats(0.01, 5), min_size=7, max_size=7))
def test_unnormalising_undoes_normalising_and_leaves_the_gripper(values: list[float], spans: list[float]) -> None:
    stats = NormStats.from_dict({"q01": [-s for s in spans], "q99": spans, "mask": [True] * 6 + [False]}, "here")
    physical = stats.unnormalise(np.array(values))
    assert physical[6] == values[6]
    assert np.allclose(stats.normalise(physical), values, atol=1e-9)


def test_a_dimension_that_never_moved_stays_where_it_was_and_what_is_beyond_the_data_is_clipped() -> None:
    stats = NormStats.from_dict({"q01": [0.0] * 6 + [0.5], "q99": [1.0] * 6 + [0.5]}, "here")
    physical = stats.unnormalise(np.array([-1.0, 0.0, 1.0, -1.0, 0.0, 1.0, 0.3]))
    assert physical.tolist() == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0, 0.5]
    assert stats.normalise(physical).tolist() == [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0, -1.0]
    for far in (-5.0, 5.0):
        assert stats.normalise(physical + far).tolist() == [np.sign(far)] * 7


def test_the_key_is_found_as_given_or_without_no_ops_or_as_the_only_one() -> None:
    assert select_norm_stats({"libero_goal_no_noops": LIBERO}, "libero_goal", HERE)[0] == "libero_goal_no_noops"
    assert (
        select_norm_stats({"libero_goal": LIBERO, "libero_goal_no_noops": LIBERO}, "libero_goal", HERE)[0]
        == "libero_goal"
    )
    assert select_norm_stats({"bridge": LIBERO}, None, HERE)[0] == "bridge"
    assert select_norm_stats({"bridge": {"action": {"q01": [0] * 7, "q99": [1] * 7}}}, None, HERE)[1].mask.all()


@pytest.mark.parametrize("key", ["libero_goal", None])
def test_a_missing_key_is_answered_with_those_that_exist(key: str | None) -> None:
    with pytest.raises(CheckpointError, match="the keys are bridge, fractal"):
        select_norm_stats({"fractal": LIBERO, "bridge": LIBERO}, key, HERE)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"q01": [0.0] * 6}, "q01 is .* expected 7 finite numbers"),
        ({"q99": [float("nan")] * 7}, "q99 is .* finite"),
        ({"q99": [1.0] * 6 + [float("inf")]}, "q99 is .* finite"),
        ({"q01": [2.0] * 7}, "q01 is above q99 for x"),
        ({"q01": [-1.0] * 4 + [2.0, -1.0, -1.0]}, "q01 is above q99 for pitch"),
        ({"q99": "high"}, "q99 is 'high'"),
        ({"mask": [1] * 7}, "mask is .* true or false"),
        ({"mask": None}, "mask is None; .* true or false"),
        ({"mask": [True] * 6}, "mask is .* expected 7 of true or false"),
        ({"mask": [True] * 6 + [1]}, "mask is .* true or false"),
    ],
)
def test_statistics_that_make_no_sense_name_the_file_and_the_field(change: dict, part: str) -> None:
    entry = {"action": {**LIBERO["action"], **change}}
    with pytest.raises(CheckpointError, match=f"checkpoint: norm_stats of libero: {part}"):
        select_norm_stats({"libero": entry}, "libero", HERE)


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        (7, "has no 'action' with q01, q99 and mask"),
        ({}, "has no 'action'"),
        ({"action": [1.0] * 7}, "has no 'action'"),
        ({"action": {"q01": [0.0] * 7}}, "q99 is missing; expected 7 numbers"),
    ],
)
def test_statistics_that_lack_something_are_refused_by_name(entry: object, part: str) -> None:
    with pytest.raises(CheckpointError, match=f"checkpoint: norm_stats of libero.*{part}"):
        select_norm_stats({"libero": entry}, "libero", HERE)


def test_a_checkpoint_without_any_statistics_says_so() -> None:
    for key in ("libero", None):
        with pytest.raises(CheckpointError, match="the keys are none"):
            select_norm_stats({}, key, HERE)
