from __future__ import annotations

from pathlib import Path

from report_folders import episode, write_run

from specvla_ros.evaluation.runs import read_runs
from specvla_ros.report.sweep import hardly_relaxed, sweep_groups, sweep_panels


def test_plain_decoding_stands_beside_each_point_where_a_draft_was_tried_on_fewer_starts(tmp_path: Path) -> None:
    played = [episode(0, state, state != 1) for state in range(4)]
    write_run(tmp_path / "plain", played)
    for draft, states in {"hold": 4, "linear": 2}.items():
        for threshold in (0, 9):
            write_run(tmp_path / f"{draft}{threshold}", played[:states], draft=draft, threshold=threshold)
    runs = read_runs(tmp_path)
    success, *_ = sweep_panels(sweep_groups(runs), runs[0], {})
    assert {curve.label: list(curve.beside) for curve in success.curves} == {"hold": [], "linear": [0.5, 0.5]}
    assert success.reference == (0.75, "plain greedy")


def test_a_draft_that_a_threshold_does_not_help_is_named(tmp_path: Path) -> None:
    for draft, relaxed in {"hold": (5,), "linear": (1, 3)}.items():
        for threshold, rounds in ((0, (1, 3)), (9, relaxed)):
            write_run(tmp_path / f"{draft}{threshold}", [episode(rounds=rounds)], draft=draft, threshold=threshold)
    assert hardly_relaxed(read_runs(tmp_path)) == [
        "Relaxing the threshold hardly lengthens what linear has accepted: 2.33 tokens per forward at 0, and at most "
        "2.33 at a higher one."
    ]


def test_two_drafts_in_folders_of_one_name_have_a_curve_each(tmp_path: Path) -> None:
    for recipe in ("long", "short"):
        draft = tmp_path / recipe / "draft"
        draft.mkdir(parents=True)
        (draft / "model.safetensors").write_text(recipe)
        for threshold in (0, 9):
            folder = tmp_path / "runs" / f"{recipe}{threshold}"
            write_run(folder, [episode()], draft=str(draft), threshold=threshold)
    groups = sweep_groups(read_runs(tmp_path / "runs"))
    assert {draft: [run.threshold for run in runs] for draft, runs in groups.items()} == {
        "long/draft": [0, 9],
        "short/draft": [0, 9],
    }
