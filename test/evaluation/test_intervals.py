from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvla_ros.evaluation.intervals import holm, mcnemar, wilson_interval


@given(st.integers(1, 2000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_the_interval_holds_the_rate_and_stays_between_0_and_1(counts: tuple[int, int]) -> None:
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1 and low < high
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("successes", "trials", "interval"),
    [(5, 10, (0.2366, 0.7634)), (0, 10, (0.0, 0.2775)), (81, 263, (0.2553, 0.3662)), (0, 0, (0.0, 1.0))],
)
def test_known_intervals(successes: int, trials: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(successes, trials) == pytest.approx(interval, abs=5e-5)


def test_more_trials_narrow_it() -> None:
    widths = [high - low for low, high in (wilson_interval(n // 2, n) for n in (10, 100, 1000))]
    assert widths[0] > widths[1] > widths[2]


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    # scipy.stats.binomtest(lost, lost + won).pvalue
    [(0, 0, 1.0), (4, 4, 1.0), (3, 4, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (2, 10, 0.03857), (59, 37, 0.03155)],
)
def test_known_p_of_the_paired_test(lost: int, won: int, p: float) -> None:
    assert mcnemar(lost, won) == mcnemar(won, lost) == pytest.approx(p, rel=1e-3)


@pytest.mark.parametrize(
    ("several", "corrected"),
    # R's p.adjust(several, "holm")
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.02, 0.9], [1.0, 0.06, 1.0]),
        ([1.0, 0.001, 0.02, 0.02], [1.0, 0.004, 0.06, 0.06]),
    ],
)
def test_the_p_of_several_tests_is_corrected_for_all_of_them(several: list[float], corrected: list[float]) -> None:
    assert holm(several) == pytest.approx(corrected)
