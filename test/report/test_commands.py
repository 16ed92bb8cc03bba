"""The commands that a report names are those that make its evaluations."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from report_folders import episode, write_run
from typer.testing import CliRunner

from specvla_ros.cli import app
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.runs import read_runs
from specvla_ros.report.commands import commands
from specvla_ros.report.films import film_path
from specvla_ros.report.group import grouped
from specvla_ros.report.missing import missing

ROOT = Path(__file__).parents[2]


def run(lines: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> dict[Path, EvaluationOptions]:
    """What the commands would evaluate, by folder."""
    wanted: dict[Path, EvaluationOptions] = {}

    def take(sweep: Sequence[EvaluationOptions], *_: Any) -> dict[str, Any]:
        wanted.update({one.output.resolve(): one for one in sweep})
        return {}

    monkeypatch.setattr("specvla_ros.evaluation.command.run_command", take)
    for line in lines:
        program, *words = shlex.split(line)
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert program == "specvla" and result.exit_code == 0, result.output
    return wanted


def check(folder: Path, lines: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    runs, wanted = read_runs(folder), run(lines, monkeypatch)
    assert set(wanted) == {one.folder for one in runs}
    for one in runs:
        assert wanted[one.folder].conditions() == one.conditions
        assert wanted[one.folder].trials == 1 + max(result.episode for result in one.episodes)


def test_a_sweep_is_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = [episode(task, state) for task in range(10) for state in range(2)]
    write_run(tmp_path / "none_r0", every)
    for threshold in (0, 9):
        write_run(tmp_path / f"hold_r{threshold}", every, draft="hold", threshold=threshold)
    speed = timed(("none", 0), ("hold", 0), ("hold", 9))
    (line,) = commands(tmp_path, read_runs(tmp_path), {tmp_path / "speed.json": speed})
    assert "--task" not in line and "--latency" not in line and "--speed 50" in line
    check(tmp_path, [line], monkeypatch)


def timed(*conditions: tuple[str, int], suite: str = "libero_object", frames: int = 50) -> dict[str, Any]:
    rows = [{"draft": draft, "threshold": threshold} for draft, threshold in conditions]
    return {"suite": suite, "frames": frames, "rows": rows}


def test_a_checkpoint_of_the_hub_is_called_by_its_name_there(tmp_path: Path) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    checkpoint = tmp_path / "hub" / "models--me--my-openvla" / "snapshots" / revision
    checkpoint.mkdir(parents=True)
    write_run(tmp_path / "runs", [episode()], draft="hold", checkpoint=str(checkpoint))
    (run,) = read_runs(tmp_path / "runs")
    (line,) = commands(tmp_path / "runs", [run], {})
    assert run.checkpoint == "me/my-openvla@0123456" and f"--checkpoint me/my-openvla@{revision}" in line


def test_a_hold_time_that_was_given_is_given_again_in_lockstep_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decides nothing there, and belongs to the conditions under which the evaluation goes on."""
    write_run(tmp_path, [episode()], draft="hold", hold_time=1.0)
    check(tmp_path, commands(tmp_path, read_runs(tmp_path), {}), monkeypatch)


def test_the_same_conditions_twice_are_a_command_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        write_run(tmp_path / name, [episode()], draft="hold")
    lines = commands(tmp_path, read_runs(tmp_path), {})
    assert len(lines) == 2
    check(tmp_path, lines, monkeypatch)


def test_speed_measured_over_two_sweeps_is_a_command_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threshold, states in {0: 4, 9: 4, 3: 2}.items():
        write_run(
            tmp_path / f"hold_r{threshold}",
            [episode(task, state) for task in range(10) for state in range(states)],
            draft="hold",
            threshold=threshold,
        )
    speed = timed(("none", 0), ("hold", 0), ("hold", 3), ("hold", 9))
    *sweeps, last = commands(tmp_path, read_runs(tmp_path), {tmp_path / "speed.json": speed})
    assert len(sweeps) == 2 and not any("--speed" in line for line in sweeps)
    assert "--speed 50" in last and "--trials 2" in last
    assert set(run([last], monkeypatch)) == {tmp_path / f"hold_r{threshold}" for threshold in (0, 3, 9)}
    check(tmp_path, sweeps, monkeypatch)


def test_two_measurements_in_one_folder_are_a_command_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for draft, thresholds in {"hold": (0, 9), "linear": (0, 3)}.items():
        for threshold in thresholds:
            write_run(tmp_path / f"{draft}_r{threshold}", [episode()], draft=draft, threshold=threshold)
    speeds = {
        tmp_path / "speed_libero_object_hold.json": timed(("none", 0), ("hold", 0), ("hold", 9), frames=40),
        tmp_path / "speed_libero_object_linear.json": timed(("none", 0), ("linear", 0), ("linear", 3), frames=60),
        tmp_path / "speed_libero_goal_linear.json": timed(("none", 0), ("linear", 0), suite="libero_goal"),
    }
    hold, linear = commands(tmp_path, read_runs(tmp_path), speeds)
    assert "--draft hold" in hold and "--speed 40" in hold
    assert "--draft linear" in linear and "--speed 60" in linear
    check(tmp_path, [hold, linear], monkeypatch)


def test_a_sweep_over_suites_is_one_command_and_so_is_their_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = {}
    for suite in ("libero_goal", "libero_object"):
        for threshold in (0, 9):
            folder = tmp_path / f"{suite}_hold_r{threshold}"
            write_run(folder, [episode(suite=suite)], draft="hold", threshold=threshold)
        timed_there = timed(("none", 0), ("hold", 0), ("hold", 9), suite=suite)
        speeds[tmp_path / f"speed_{suite}_hold.json"] = timed_there
    (line,) = commands(tmp_path, read_runs(tmp_path), speeds)
    assert "--suite libero_goal --suite libero_object" in line and "--speed 50" in line
    check(tmp_path, [line], monkeypatch)


def test_the_script_makes_every_evaluation_of_the_committed_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # the commands name a benchmark's file from there
    page = unescape((ROOT / "docs" / "report" / "index.html").read_text())
    shown = run(
        re.findall(r"^(?:<pre>.*<pre>)?(specvla eval [^&<\n]*/report(?:/\S+)?)$", page, re.MULTILINE), monkeypatch
    )
    assert len(shown) > 20
    for name in ("scripts", ".venv/bin", *(f"runs/report/{folder.name}" for folder in shown)):
        (tmp_path / name).mkdir(parents=True)
    script = tmp_path / "scripts" / "report"
    shutil.copy(ROOT / "scripts" / "report", script)
    stand_in = tmp_path / ".venv" / "bin" / "specvla"
    stand_in.write_text('#!/bin/bash\necho specvla "${@@Q}" >> calls\nfor last; do :; done\nmkdir -p "$last/videos"\n')
    stand_in.chmod(0o755)
    subprocess.run([script], check=True, timeout=60)
    *calls, last = (tmp_path / "calls").read_text().splitlines()
    assert shlex.join(shlex.split(last)) == ("specvla report runs/report --case-study eagle_r9 --output docs/report")
    made = run(calls, monkeypatch)
    assert set(shown) <= set(made)
    for folder, options in shown.items():
        assert made[folder].conditions() == options.conditions() and made[folder].trials >= options.trials


def test_ten_of_ninety_tasks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [episode(task, suite="libero_90") for task in range(10)]
    for threshold in (0, 9):
        write_run(tmp_path / f"hold_r{threshold}", some, draft="hold", threshold=threshold)
    (line,) = commands(tmp_path, read_runs(tmp_path), {})
    assert {one.tasks for one in run([line], monkeypatch).values()} == {tuple(range(10))}


def test_all_of_ninety_tasks_need_no_names(tmp_path: Path) -> None:
    every = [episode(task, suite="libero_90") for task in range(90)]
    for threshold in (0, 9):
        write_run(tmp_path / f"hold_r{threshold}", every, draft="hold", threshold=threshold)
    (line,) = commands(tmp_path, read_runs(tmp_path), {})
    assert "--task" not in line


def test_what_a_report_lacks_is_made_under_the_conditions_of_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    folder = tmp_path / "runs"
    conditions = {"checkpoint": str(checkpoint), "dtype": "bfloat16", "seed": 7, "max_steps": 50}
    write_run(folder / "hold_r0_seed-7", [episode(3), episode(4, 1)], draft="hold", **conditions)
    (group,) = grouped(read_runs(folder), {})
    line = missing(group, folder)["threshold sweep"]
    wanted = run([line], monkeypatch)
    again = wanted[folder / "hold_r0_seed-7"]
    assert again.conditions() == read_runs(folder)[0].conditions, "the evaluation that is there goes on"
    assert all((one.tasks, one.trials, one.seed) == ((3, 4), 2, 7) for one in wanted.values())


@pytest.mark.parametrize(
    "layout",
    [
        {"": {"draft": "none"}},
        {"": {"draft": "hold", "threshold": 3}},
        {"": {"draft": "hold", "latency": "fixed:100"}},
        {"hold_r0": {"draft": "hold"}, "hold_r3": {"draft": "hold", "threshold": 3}},
        {f"{suite}_hold_r3": {"draft": "hold", "threshold": 3} for suite in ("libero_10", "libero_goal")},
    ],
)
def test_what_a_report_lacks_is_made_beside_what_it_has(
    layout: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs"
    for name, conditions in layout.items():
        suite = "libero_object" if "libero" not in name else name.removesuffix("_hold_r3")
        write_run(folder / name, [episode(0, state, suite=suite) for state in range(4)], **conditions)
    taken = {one.folder: one.conditions for one in read_runs(folder)}
    for group in grouped(read_runs(folder), {}):
        lacking = missing(group, folder)
        assert lacking.pop("films").startswith("specvla eval")
        lacking.pop("case study", "")
        for what, line in lacking.items():
            for place, wanted in run([line], monkeypatch).items():
                assert taken.setdefault(place, wanted.conditions()) == wanted.conditions(), what


def test_films_are_made_of_episodes_that_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs"
    write_run(folder, [episode(task, state) for task in (0, 1) for state in range(5)], draft="hold", threshold=9)
    (group,) = grouped(read_runs(folder), {})
    play, copy = missing(group, folder)["films"].split(" && ")
    ((place, options),) = run([play], monkeypatch).items()
    assert place == tmp_path / "runs_films" / "runs", "in its own folder they would not be played again"
    assert (options.tasks, options.trials, options.videos) == ((0, 1), 3, 3)
    assert options.conditions() == read_runs(folder)[0].conditions
    assert [Path(word).resolve() for word in shlex.split(copy)[2:]] == [place / "videos", folder]


def test_several_seeds_are_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, folder in {0: "hold_r0", 7: "hold_r0_seed-7"}.items():
        write_run(tmp_path / folder, [episode()], draft="hold", seed=seed)
    (line,) = commands(tmp_path, read_runs(tmp_path), {})
    assert "--seed 0 --seed 7" in line
    check(tmp_path, [line], monkeypatch)


def test_what_was_no_sweep_is_a_command_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "first", [episode(3)], draft="hold", threshold=2, max_steps=50)
    write_run(tmp_path / "second", [episode(3)], draft="hold", threshold=(1, 2, 3, 4, 5, 6, 0), max_steps=50)
    write_run(tmp_path / "third", [episode(1, 4)], draft="linear", latency="model:60+25", hold_time=0.3)
    write_run(tmp_path / "fourth", [episode(1, 4)], fast_rendering=False)
    lines = commands(tmp_path, read_runs(tmp_path), {})
    assert len(lines) == 4
    check(tmp_path, lines, monkeypatch)


def test_a_draft_with_thresholds_of_its_own_is_a_command_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for draft, thresholds in {"hold": (0, 3), "linear": (5,)}.items():
        for threshold in thresholds:
            write_run(tmp_path / f"{draft}_r{threshold}", [episode()], draft=draft, threshold=threshold)
    lines = commands(tmp_path, read_runs(tmp_path), {})
    assert len(lines) == 2
    check(tmp_path, lines, monkeypatch)


def test_a_threshold_tried_at_more_latencies_is_one_command_and_so_are_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = {0: ("fixed:50", "fixed:100", "model:60+25"), 3: ("model:60+25",), 9: ("model:60+25",)}
    for threshold, latencies in tried.items():
        for latency in latencies:
            folder = tmp_path / f"hold_r{threshold}_{latency.replace(':', '-')}_hold-1"
            write_run(folder, [episode()], draft="hold", threshold=threshold, latency=latency, hold_time=1.0)
    lines = commands(tmp_path, read_runs(tmp_path), {})
    assert len(lines) == 3
    check(tmp_path, lines, monkeypatch)


def test_tasks_that_failed_off_camera_have_a_command_that_films_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs"
    outcomes = {(0, 0): True, (1, 0): False, (1, 1): False, (2, 0): True, (2, 1): True, (2, 2): False, (2, 3): False}
    episodes = [episode(task, state, success) for (task, state), success in outcomes.items()]
    write_run(folder / "hold_r9", episodes, draft="hold", threshold=9)
    write_run(folder / "late", [episode(2, 0, False)], draft="hold", threshold=9, latency="fixed:100")
    (group,) = grouped(read_runs(folder), {})
    assert not any("failure" in what for what in missing(group, folder)), "nothing is filmed at all"
    for task in range(3):
        path = film_path(folder / "hold_r9", episode(task, 0))
        path.parent.mkdir(exist_ok=True)
        path.touch()
    made = {what: line for what, line in missing(group, folder).items() if "failure" in what}
    assert list(made) == ["film of a failure, task 2 (hold, r = 9)"]
    (line,) = made.values()
    play, copy = line.split(" && ")
    output = tmp_path / "runs_films" / "hold_r9"
    ((place, options),) = run([play], monkeypatch).items()
    assert place == output and (options.tasks, options.trials, options.videos) == ((2,), 3, 3)
    assert options.conditions() == read_runs(folder)[0].conditions
    assert [Path(word).resolve() for word in shlex.split(copy)[2:]] == [output / "videos", folder / "hold_r9"]
