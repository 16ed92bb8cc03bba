from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_folders import episode, write_run

from specvla_ros.evaluation.runs import read_runs
from specvla_ros.report.repetition import unvarying_dimensions
from specvla_ros.report.report import write_report


def test_what_strict_hold_nearly_always_gets_right_is_called_unvarying(tmp_path: Path) -> None:
    same = replace(episode(steps=100), position_accepts=(0, 50, 94, 95, 99, 100, 0))
    write_run(tmp_path / "hold", [same], draft="hold")
    assert unvarying_dimensions(read_runs(tmp_path)) == ["roll", "pitch", "yaw"]
    html = write_report(tmp_path, tmp_path / "report").read_text()
    assert "3 of the seven tokens hardly ever change from one action to the next: roll, pitch, yaw." in html


def test_accepted_drafts_of_others_do_not_tell_whether_a_token_changed(tmp_path: Path) -> None:
    write_run(tmp_path / "linear", [episode()], draft="linear")
    write_run(tmp_path / "relaxed", [episode()], draft="hold", threshold=9)
    assert unvarying_dimensions(read_runs(tmp_path)) == []
