from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stand_ins import SHORT, FakeRig, result

from specvla_ros.errors import ConfigurationError, SimulationError
from specvla_ros.evaluation.command import run_command
from specvla_ros.evaluation.episode_file import EpisodeFile
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.speed_run import run_speeds, speed_file
from specvla_ros.evaluation.sweep import combinations
from specvla_ros.evaluation.threshold import parse_threshold, threshold_text
from specvla_ros.sim.libero import Task


def options(output: Path) -> EvaluationOptions:
    (output / "model").mkdir(exist_ok=True)
    return EvaluationOptions("libero_object", output, tasks=(1,), trials=2, checkpoint=str(output / "model"))


def run(sweep: list[EvaluationOptions], output: Path, frames: int = 0, fault: str = "") -> tuple[dict[str, Any], str]:
    screen = io.StringIO()
    return run_command(sweep, frames, output, Console(file=screen, width=160), FakeRig(fault)), screen.getvalue()


def test_every_draft_meets_every_threshold_and_latency_and_plain_greedy_runs_once(tmp_path: Path) -> None:
    by_dimension = (9, 9, 9, 5, 5, 5, 0)
    sweep = combinations(options(tmp_path), ["none", "runs/draft"], [0, 3, by_dimension], ["lockstep", "model:60+2.5"])
    assert [one.output.relative_to(tmp_path).name for one in sweep] == [
        "none_r0",
        "none_r0_model-60+2.5",
        "runs-draft_r0",
        "runs-draft_r0_model-60+2.5",
        "runs-draft_r3",
        "runs-draft_r3_model-60+2.5",
        "runs-draft_r9-9-9-5-5-5-0",
        "runs-draft_r9-9-9-5-5-5-0_model-60+2.5",
    ]
    assert sweep[-1].threshold == by_dimension and sweep[-1].latency == "model:60+2.5"


def test_another_hold_time_than_the_usual_one_has_a_folder_of_its_own_in_real_time(tmp_path: Path) -> None:
    held = replace(options(tmp_path), hold_time=1.0)
    sweep = combinations(held, ["hold"], [0], ["lockstep", "fixed:100"])
    assert [one.output.name for one in sweep] == ["hold_r0", "hold_r0_fixed-100_hold-1"]


def test_a_single_evaluation_keeps_the_folder_itself(tmp_path: Path) -> None:
    (one,) = combinations(options(tmp_path), ["hold"], [3], ["lockstep"])
    assert one.output == tmp_path and (one.draft, one.threshold) == ("hold", 3)


def test_drafts_whose_folders_would_be_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="differ in punctuation only"):
        combinations(options(tmp_path), ["a/b", "a-b"], [0], ["lockstep"])


@pytest.mark.parametrize("text", ["3", "9,9,9,5,5,5,0"])
def test_a_threshold_is_read_as_it_is_written(text: str) -> None:
    assert threshold_text(parse_threshold(text)) == text


def test_a_threshold_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="threshold 'three' is none; expected a whole number"):
        parse_threshold("three")


def test_a_sweep_is_compared_in_one_table_and_goes_on_where_it_was(tmp_path: Path) -> None:
    sweep = combinations(options(tmp_path), ["hold"], [0, 3], ["lockstep", "fixed:100"])
    figures, screen = run(sweep, tmp_path)
    rows = figures["conditions"]
    assert [(row["threshold"], row["latency"], row["folder"]) for row in rows] == [
        (0, "lockstep", "hold_r0"),
        (0, "fixed:100", "hold_r0_fixed-100"),
        (3, "lockstep", "hold_r3"),
        (3, "fixed:100", "hold_r3_fixed-100"),
    ]
    assert [row["mode"] for row in rows] == ["lockstep", "realtime"] * 2
    assert all(row["solved"] == row["episodes"] == 2 and row["steps"] == SHORT for row in rows)
    assert rows[2]["deviation"] == pytest.approx(18 / 7) and rows[0]["deviation"] == 0
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(figures))
    markdown = (tmp_path / "summary.md").read_text().splitlines()
    column = markdown[0].split("|").index(" rounds ")
    assert [line.split("|")[column] for line in markdown[2:]] == [" 1.00 "] * 4
    assert len(markdown) == 6 and markdown[4].startswith("| hold | 3 | lockstep | 2/2 | 34.2 - 100.0 % | 3.0 | 3.50 |")
    assert "4 of 4: hold_r3_fixed-100" in screen and "34.2 - 100.0 %" in screen
    for folder in ("hold_r0", "hold_r3_fixed-100"):
        names = {file.name for file in (tmp_path / folder).iterdir()}
        assert {"options.json", "episodes.jsonl", "summary.json", "summary.md"} <= names
    (tmp_path / "hold_r3" / "episodes.jsonl").write_text("")
    with pytest.raises(SimulationError, match="exit code 7"):
        run(sweep, tmp_path, fault="exit")
    again, screen = run(sweep, tmp_path)
    assert [row["solved"] for row in again["conditions"]] == [2, 2, 2, 2]
    assert screen.count("2 of 2 episodes are finished already") == 3


def test_several_suites_have_folders_of_their_own(tmp_path: Path) -> None:
    suites = ["libero_object", "libero_goal"]
    sweep = combinations(options(tmp_path), ["none", "hold"], [0], ["lockstep"], suites)
    assert [(one.suite, one.output.name) for one in sweep] == [
        ("libero_object", "libero_object_none_r0"),
        ("libero_object", "libero_object_hold_r0"),
        ("libero_goal", "libero_goal_none_r0"),
        ("libero_goal", "libero_goal_hold_r0"),
    ]
    figures, _ = run(sweep, tmp_path)
    assert [row["suite"] for row in figures["conditions"]] == ["libero_object"] * 2 + ["libero_goal"] * 2


def test_one_suite_of_several_goes_on_in_its_own_folders(tmp_path: Path) -> None:
    several = combinations(options(tmp_path), ["hold"], [0], ["lockstep"], ["libero_object", "libero_goal"])
    run(several, tmp_path)
    (alone,) = combinations(options(tmp_path), ["hold"], [0], ["lockstep"], ["libero_goal"])
    assert alone == several[1]


def test_a_mistake_in_the_last_suite_is_told_before_the_first_is_played(tmp_path: Path) -> None:
    class OneTask(FakeRig):
        def tasks(self, options: EvaluationOptions) -> list[Task]:
            return super().tasks(options)[: 1 if options.suite == "libero_goal" else 3]

    sweep = combinations(options(tmp_path), ["hold"], [0], ["lockstep"], ["libero_object", "libero_goal"])
    with pytest.raises(ConfigurationError, match="task 1 does not exist; libero_goal has tasks 0 to 0"):
        run_command(sweep, 0, tmp_path, Console(file=io.StringIO()), OneTask())
    assert not list(tmp_path.glob("*/episodes.jsonl"))


def test_that_no_film_can_be_made_is_told_before_the_first_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'imageio\[ffmpeg\]'"):
        run([replace(options(tmp_path), videos=1)], tmp_path)
    assert not (tmp_path / "episodes.jsonl").exists()


def test_a_draft_that_does_not_exist_is_told_before_the_first_is_played(tmp_path: Path) -> None:
    sweep = combinations(options(tmp_path), ["none", "eagel"], [0], ["lockstep"])
    with pytest.raises(ConfigurationError, match="draft 'eagel' does not exist"):
        run_command(sweep, 0, tmp_path, Console(file=io.StringIO()), FakeRig())
    assert not list(tmp_path.glob("*/episodes.jsonl"))


def test_several_seeds_are_compared_each_in_a_folder_of_its_own(tmp_path: Path) -> None:
    sweep = combinations(options(tmp_path), ["hold"], [3], ["lockstep", "fixed:100"], seeds=[0, 7])
    assert [(one.seed, one.output.name) for one in sweep] == [
        (0, "hold_r3"),
        (0, "hold_r3_fixed-100"),
        (7, "hold_r3_seed-7"),
        (7, "hold_r3_fixed-100_seed-7"),
    ]
    figures, screen = run(sweep, tmp_path)
    assert "seed" in screen and (tmp_path / "summary.md").read_text().startswith("| seed | draft |")
    assert [row["seed"] for row in figures["conditions"]] == [0, 0, 7, 7]
    (alone,) = combinations(options(tmp_path), ["hold"], [3], ["lockstep"], seeds=[7])
    assert (alone.seed, alone.output) == (7, tmp_path / "hold_r3_seed-7"), "beside the others"


def test_a_later_sweep_in_the_same_folder_is_written_beside_the_earlier(tmp_path: Path) -> None:
    run(combinations(options(tmp_path), ["hold"], [0, 3], ["lockstep"]), tmp_path)
    figures, screen = run(combinations(options(tmp_path), ["hold"], [3, 9], ["lockstep"]), tmp_path)
    assert [row["folder"] for row in figures["conditions"]] == ["hold_r3", "hold_r9"] and "hold_r0" not in screen
    written = json.loads((tmp_path / "summary.json").read_text())["conditions"]
    assert [(row["folder"], row["episodes"]) for row in written] == [("hold_r0", 2), ("hold_r3", 2), ("hold_r9", 2)]
    assert len((tmp_path / "summary.md").read_text().splitlines()) == 5


def test_a_sweep_that_another_one_in_the_folder_overtook_is_written_beside_it(tmp_path: Path) -> None:
    """As where each of two GPUs has a draft to evaluate."""
    first, other = (combinations(options(tmp_path), [draft], [0, 3], ["lockstep"]) for draft in ("hold", "linear"))

    def finish(sweep: list[EvaluationOptions]) -> None:
        for one in sweep:
            with EpisodeFile(one.output, one.conditions()) as file:
                file.append(result(1, 0))
                file.append(result(1, 1))

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            if "1 of 2" in text:
                finish(other)
            return super().write(text)

    finish(first)
    run_command(first, 0, tmp_path, Console(file=Screen(), width=160), FakeRig())
    written = json.loads((tmp_path / "summary.json").read_text())["conditions"]
    assert [row["folder"] for row in written] == ["linear_r0", "linear_r3", "hold_r0", "hold_r3"]


@pytest.mark.parametrize(
    ("drafts", "threshold", "message"),
    [
        (["none"], 9, "there is no draft"),
        (["none"], 256, "out of range"),
        (["hold"], (1, 2, 3), "expected one for each"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(
    tmp_path: Path, drafts: list[str], threshold: int | tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        combinations(options(tmp_path), drafts, [0, threshold], ["lockstep"])


def test_the_speed_up_of_every_draft_and_threshold_is_measured_in_one_run(tmp_path: Path) -> None:
    sweep = combinations(options(tmp_path), ["hold", "linear"], [0, 9], ["lockstep", "fixed:100"])
    figures, screen = run(sweep, tmp_path, frames=4)
    (file,) = tmp_path.glob("speed_libero_object_hold-linear_*.json")
    report = json.loads(file.read_text())
    assert [report] == json.loads(json.dumps(figures["speed"]))
    assert (report["tasks"], report["frames"]) == ([1], 4)
    assert [(row["draft"], row["threshold"]) for row in report["rows"]] == [
        ("none", 0),
        ("hold", 0),
        ("hold", 9),
        ("linear", 0),
        ("linear", 9),
    ]
    plain, hold, _, linear, _ = (row["speed_up"] for row in report["rows"])
    assert plain == 1 and hold > linear > 1
    assert "speed-up" in screen


def test_every_suite_is_timed_and_another_measurement_is_written_beside(tmp_path: Path) -> None:
    suites, every = ["libero_object", "libero_goal"], replace(options(tmp_path), tasks=())
    figures, _ = run(combinations(options(tmp_path), ["hold"], [0], ["lockstep"], suites), tmp_path, frames=2)
    assert [report["suite"] for report in figures["speed"]] == suites
    first = {file: file.read_bytes() for file in tmp_path.glob("speed*.json")}
    assert {re.sub(r"_\w{8}\.json", "", file.name) for file in first} == {f"speed_{suite}_hold" for suite in suites}
    run(combinations(options(tmp_path), ["linear", "none"], [0], ["lockstep"]), tmp_path, frames=2)
    run(combinations(options(tmp_path), ["hold"], [0, 9], ["lockstep"]), tmp_path, frames=2)
    run(combinations(options(tmp_path), ["hold"], [0], ["lockstep"]), tmp_path, frames=3)
    run(combinations(every, ["hold"], [0], ["lockstep"]), tmp_path, frames=3)
    assert len(list(tmp_path.glob("speed*.json"))) == 6
    assert all(file.read_bytes() == content for file, content in first.items())


def test_a_measurement_on_the_second_gpu_names_that_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"the GPU {device or 'cuda:0'}")
    sweep = [replace(options(tmp_path), draft="hold", device="cuda:1")]
    (report,) = run_speeds(sweep, 1, tmp_path, FakeRig()).values()
    assert report["device"] == "the GPU cuda:1"


def test_many_drafts_with_long_names_still_make_a_file_name(tmp_path: Path) -> None:
    drafts = [f"/a/folder/draft-{letter * 100}" for letter in "abcd"]
    assert len(speed_file(combinations(options(tmp_path), drafts, [9], ["lockstep"]), 10)) < 150


def test_one_more_threshold_of_a_sweep_gets_a_folder_beside_the_others(tmp_path: Path) -> None:
    run(combinations(options(tmp_path), ["hold"], [0, 3], ["lockstep"]), tmp_path)
    figures, _ = run(combinations(options(tmp_path), ["hold"], [9], ["lockstep"]), tmp_path)
    assert [row["folder"] for row in figures["conditions"]] == ["hold_r9"]
    written = json.loads((tmp_path / "summary.json").read_text())["conditions"]
    assert [row["folder"] for row in written] == ["hold_r0", "hold_r3", "hold_r9"]
    assert not (tmp_path / "episodes.jsonl").exists()


def test_a_part_of_an_evaluation_played_again_leaves_the_whole_one_in_its_summary(tmp_path: Path) -> None:
    every = replace(options(tmp_path), tasks=(0, 1, 2), trials=2)
    run([every], tmp_path)
    figures, _ = run([replace(every, tasks=(1,), trials=1)], tmp_path)
    assert figures["total"]["episodes"] == 1
    assert json.loads((tmp_path / "summary.json").read_text())["total"]["episodes"] == 6


def test_frames_are_spread_over_all_tasks_of_the_sweep(tmp_path: Path) -> None:
    sweep = combinations(replace(options(tmp_path), tasks=()), ["hold"], [0], ["lockstep"])
    (report,) = run_speeds(sweep, 8, tmp_path, FakeRig()).values()
    assert (report["tasks"], report["frames"]) == ([0, 1, 2], 8), "three, three and two"
    (scenes,) = tmp_path.glob("scenes-*")
    assert scenes.read_text().split() == ["0", "1", "2"]
    (few,) = run_speeds(sweep, 2, tmp_path, FakeRig()).values()
    assert (few["tasks"], few["frames"]) == ([0, 1], 2)
