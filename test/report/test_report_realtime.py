from __future__ import annotations

from pathlib import Path

import pytest
from report_folders import episode, write_run

from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.evaluation.runs import read_runs
from specvla_ros.report.numbers import ABSENT
from specvla_ros.report.realtime import (
    latency_panel,
    realtime_table,
    threshold_caption,
    threshold_panel,
    threshold_sweeps,
)
from specvla_ros.report.result_tables import paired_cells


def outcomes(solved: int, tried: int) -> list[EpisodeResult]:
    return [episode(0, state, state < solved) for state in range(tried)]


def test_the_best_threshold_has_its_interval_and_those_it_cannot_be_told_from(tmp_path: Path) -> None:
    for threshold, solved in {0: 5, 3: 30, 6: 34, 9: 10}.items():
        write_run(
            tmp_path / f"{threshold}", outcomes(solved, 40), draft="hold", threshold=threshold, latency="measured"
        )
    (sweep,) = threshold_sweeps(read_runs(tmp_path))
    assert sweep.label == "hold, the decoder's own, holds 200 ms"
    assert sweep.best() == (
        "Best threshold: 6, with 85.0 % of 40 episodes solved (95 % interval 70.9 to 92.9 %). "
        "These episodes do not tell it from 3 (exact McNemar tests, corrected by Holm for all pairs of thresholds, "
        "5 % level)."
    )


def test_a_clear_winner_is_not_called_a_tie(tmp_path: Path) -> None:
    for threshold, solved in {0: 2, 9: 38}.items():
        write_run(
            tmp_path / f"{threshold}", outcomes(solved, 40), draft="hold", threshold=threshold, latency="measured"
        )
    (sweep,) = threshold_sweeps(read_runs(tmp_path))
    assert sweep.best().startswith("Best threshold: 9,") and "do not tell" not in sweep.best()


def test_episodes_that_pair_up_tell_thresholds_apart_whose_intervals_overlap(tmp_path: Path) -> None:
    """What solves the same episodes and eight more is better for sure; 20 and 28 of 40 alone would not say so."""
    for threshold, solved in {0: 20, 3: 23, 6: 28}.items():
        write_run(
            tmp_path / f"{threshold}", outcomes(solved, 40), draft="hold", threshold=threshold, latency="measured"
        )
    (sweep,) = threshold_sweeps(read_runs(tmp_path))
    assert "do not tell it from 3 (" in sweep.best()


def test_a_best_of_many_thresholds_must_be_better_by_more_than_one_of_two(tmp_path: Path) -> None:
    """Six episodes more are enough where two were compared, and not where the best of four was picked."""
    solved = {0: 20, 3: 26, 6: 21, 9: 22}
    for threshold, count in solved.items():
        folder = tmp_path / "four" / f"{threshold}"
        write_run(folder, outcomes(count, 40), draft="hold", threshold=threshold, latency="measured")
    (four,) = threshold_sweeps(read_runs(tmp_path / "four"))
    (two,) = threshold_sweeps([run for run in read_runs(tmp_path / "four") if run.threshold in (0, 3)])
    assert "do not tell it from 0, 6, 9 (" in four.best() and "do not tell" not in two.best()


def test_the_best_threshold_is_that_of_the_starts_that_all_were_tried_on(tmp_path: Path) -> None:
    """A threshold that was tried on the easy starts only is no better for it."""
    hard = [episode(1, state, False) for state in range(9)]
    write_run(tmp_path / "easy", outcomes(3, 4), draft="hold", threshold=3, latency="measured")
    write_run(tmp_path / "all", [*outcomes(4, 4), *hard], draft="hold", latency="measured")
    write_run(tmp_path / "plain", outcomes(2, 20), latency="measured")
    (sweep,) = threshold_sweeps(read_runs(tmp_path))
    assert sweep.best().startswith("Best threshold: 0, with 100.0 % of 4 starts that all thresholds share solved")
    assert sweep.best().endswith("Plain greedy decoding solved 2 of 4.")
    (curve,) = threshold_panel([sweep]).curves
    assert (curve.x, curve.y) == ([0, 3], [1.0, 0.75]), "what is drawn is what is said"
    assert "share (hold, the decoder's own, holds 200 ms: 4)" in threshold_caption([sweep])


def test_thresholds_without_a_common_start_are_not_compared(tmp_path: Path) -> None:
    for threshold in (0, 3):
        run = {"draft": "hold", "threshold": threshold, "latency": "measured"}
        write_run(tmp_path / f"{threshold}", [episode(threshold)], **run)
    (sweep,) = threshold_sweeps(read_runs(tmp_path))
    assert "no start in common" in sweep.best() and not threshold_panel([sweep]).curves


def test_one_threshold_alone_is_not_the_best(tmp_path: Path) -> None:
    write_run(tmp_path, outcomes(2, 2), draft="hold", threshold=9, latency="measured")
    assert threshold_sweeps(read_runs(tmp_path)) == []


def test_a_delay_model_is_called_emulated(tmp_path: Path) -> None:
    for threshold in (0, 9):
        run = {"draft": "hold", "threshold": threshold, "latency": "model:60+25"}
        write_run(tmp_path / f"{threshold}", outcomes(1, 2), **run)
    runs = read_runs(tmp_path)
    (sweep,) = threshold_sweeps(runs)
    assert sweep.label == "hold, emulated, 60 ms + 25 ms a round, holds 200 ms"
    assert realtime_table("x", runs, None).rows[0][2] == "emulated, 60 ms + 25 ms a round"


def test_success_by_latency_begins_with_lockstep_and_leaves_own_latencies_out(tmp_path: Path) -> None:
    for name, latency, solved in (
        ("a", "lockstep", 4),
        ("b", "fixed:200", 1),
        ("c", "fixed:50", 2),
        ("d", "measured", 3),
    ):
        write_run(tmp_path / name, outcomes(solved, 4), draft="hold", threshold=3, latency=latency)
    write_run(tmp_path / "e", outcomes(1, 4), draft="hold", threshold=9)
    (curve,) = latency_panel(read_runs(tmp_path)).curves
    assert curve.label == "hold, r = 3, holds 200 ms"
    assert (curve.x, curve.y) == ([0, 50, 200], [1.0, 0.5, 0.25])
    assert all(low <= rate <= high for low, rate, high in zip(curve.low, curve.y, curve.high, strict=True))


def test_held_and_resting_steps_are_shares_of_all_steps(tmp_path: Path) -> None:
    slow = [
        episode(0, 0, steps=10, actions=4, steps_held=5, steps_without_command=1),
        episode(0, 1, steps=30, actions=10, steps_held=7, steps_without_command=3),
    ]
    write_run(tmp_path, slow, draft="hold", latency="fixed:100")
    (run,) = read_runs(tmp_path)
    assert realtime_table("x", [run], None).rows[0][-2:] == ["30.0", "10.0"]
    assert run.details.held == pytest.approx(0.3)


def test_evaluations_whose_commands_hold_for_another_time_are_not_mixed(tmp_path: Path) -> None:
    for hold_time, solved in {0.2: 3, 1.0: 1}.items():
        for latency in ("fixed:100", "measured"):
            folder = tmp_path / f"{latency}_{hold_time}"
            write_run(folder, outcomes(solved, 4), draft="hold", latency=latency, hold_time=hold_time)
    runs = read_runs(tmp_path)
    assert threshold_sweeps(runs) == []
    curves = {curve.label: curve.y for curve in latency_panel(runs).curves}
    assert curves == {"hold, r = 0, holds 200 ms": [0.75], "hold, r = 0, holds 1000 ms": [0.25]}


def test_thresholds_stand_beside_plain_greedy_decoding_at_the_same_latency(tmp_path: Path) -> None:
    for threshold in (0, 9):
        write_run(tmp_path / f"{threshold}", outcomes(3, 4), draft="hold", threshold=threshold, latency="model:60+25")
    write_run(tmp_path / "plain", outcomes(1, 4), latency="model:60+25")
    write_run(tmp_path / "other", outcomes(4, 4), latency="model:60+90")
    (sweep,) = threshold_sweeps(read_runs(tmp_path))
    assert sweep.best().endswith("Plain greedy decoding solved 1 of 4.")
    (drafted,) = threshold_panel([sweep]).curves
    assert (drafted.x, drafted.y) == ([0, 9], [0.75, 0.75]), "plain greedy decoding has no threshold"


def test_the_mean_latency_counts_the_rounds_that_were_decoded(tmp_path: Path) -> None:
    write_run(tmp_path, [episode(rounds=(2, 2))], draft="hold", latency="model:60+25")
    assert realtime_table("x", read_runs(tmp_path), None).rows[0][4] == "110"


def test_evaluations_in_real_time_stand_in_the_order_of_their_latency_and_hold_time(tmp_path: Path) -> None:
    given = [("fixed:50", 1.0), ("fixed:200", 0.2), ("fixed:200", 1.0), ("model:60+25", 0.1), ("model:60+25", 0.2)]
    for number, (latency, hold_time) in enumerate(reversed(given)):
        write_run(tmp_path / f"{number}", outcomes(1, 2), draft="hold", latency=latency, hold_time=hold_time)
    runs = read_runs(tmp_path)
    assert [(run.latency, run.conditions["hold_time"]) for run in runs] == given


def test_what_greedy_decoding_solved_of_the_same_starts_stands_beside(tmp_path: Path) -> None:
    write_run(tmp_path / "plain", outcomes(3, 4))
    write_run(tmp_path / "drafted", outcomes(1, 2), draft="hold", latency="fixed:50")
    write_run(tmp_path / "longer", outcomes(1, 6), draft="hold", latency="fixed:100")
    plain, *realtime = read_runs(tmp_path)
    table = realtime_table("x", realtime, plain)
    column = table.headings.index("greedy, same starts")
    assert [row[column] for row in table.rows] == ["2/2", ABSENT], "of starts that it lacks nothing is said"


def test_episodes_that_a_draft_lost_and_won_against_greedy_decoding_are_counted_one_by_one(tmp_path: Path) -> None:
    solved = {"plain": (0, 1, 2, 3, 4, 5, 6), "drafted": (6, 7)}
    for name, states in solved.items():
        played = [episode(0, state, state in states) for state in range(8)]
        write_run(tmp_path / name, played, draft="none" if name == "plain" else "hold")
    plain, drafted = read_runs(tmp_path)
    assert paired_cells([plain, drafted], plain) == [["7/8", ABSENT, ABSENT], ["7/8", "6 / 1", "0.12"]]


def test_the_p_of_a_table_are_corrected_for_the_rows_that_are_compared(tmp_path: Path) -> None:
    for name, solved in {"plain": 12, "r0": 12, "r3": 5, "r9": 2}.items():
        played = [episode(0, state, state < solved) for state in range(12)]
        threshold = 0 if name == "plain" else int(name[1:])
        write_run(tmp_path / name, played, draft="none" if name == "plain" else "hold", threshold=threshold)
    plain, *drafted = read_runs(tmp_path)
    cells = paired_cells([plain, *drafted], plain)
    assert [row[1:] for row in cells[1:]] == [["0 / 0", "1"], ["7 / 0", "0.031"], ["10 / 0", "0.0059"]]
    assert paired_cells(drafted[1:2], plain) == [["12/12", "7 / 0", "0.016"]], "alone it is one comparison"
    assert paired_cells(drafted, None) == [[ABSENT] * 3] * 3
