"""`specvla bench` as a whole, on a few small images; its times are never looked at, only what must hold of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_environment import FakeEnvironment
from rich.console import Console
from training_recordings import record
from typer.testing import CliRunner

from specvla_ros.bench.command import run_bench
from specvla_ros.bench.entrants import load_plain
from specvla_ros.bench.frames import read_frames, render_frames
from specvla_ros.bench.head_check import HeadCheck, check_head
from specvla_ros.bench.options import BenchOptions
from specvla_ros.bench.timeline import _is_product, record_timeline
from specvla_ros.cli import app
from specvla_ros.errors import ConfigurationError, DataError, ImageError, SimulationError
from specvla_ros.fake_policy import FakePolicy
from specvla_ros.sim.libero import Task

PHASES = {"prepare", "vision", "prefill", "draft", "verify", "other", "total"}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scene twice, then another: hold hits on the second image and may miss on the third."""
    path = tmp_path_factory.mktemp("frames") / "frames.npz"
    one, other = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    np.savez(path, images=np.stack([one, one, other, other]), instruction="pick up the bowl")
    return path


@pytest.fixture(scope="module")
def report(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    options = BenchOptions(
        frames=frames, drafts=("hold",), imposed=("paper",), device="cpu", output=tmp_path_factory.mktemp("bench")
    )
    return {**run_bench(options, Console(quiet=True)), "output": options.output}


def test_images_are_kept_for_a_machine_without_a_simulator(frames: Path, tmp_path: Path) -> None:
    kept = tmp_path / "new" / "frames.npz"
    options = BenchOptions(size="tiny", frames=frames, save_frames=kept, device="cpu", output=tmp_path)
    run_bench(options, Console(quiet=True))
    one, other = read_frames(frames, 9), read_frames(kept, 9)
    assert np.array_equal(one.images, other.images) and one.instruction == other.instruction


def test_other_weights_are_a_row_of_their_own(frames: Path, tmp_path: Path) -> None:
    options = BenchOptions(frames=frames, drafts=("hold",), weights=("float8", "int8"), device="cpu", output=tmp_path)
    rows = {row["name"]: row for row in run_bench(options, Console(quiet=True))["rows"]}
    quantised, greedy = rows["greedy, float8 weights"], rows["greedy"]
    assert 0 < quantised["moved"] < greedy["moved"] and quantised["forwards"] == 7
    assert 0 <= quantised["same_actions"] <= 1 and quantised["bins_off"] < 20


def test_weights_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="weights int3: expected float8 or int8"):
        BenchOptions(weights=("int3",))


def test_rows_are_transformers_greedy_and_each_threshold_of_each_draft(report: dict[str, Any]) -> None:
    measured = [row["name"] for row in report["rows"] if row["kind"] == "measured"]
    assert measured == [
        "greedy",
        "transformers, greedy",
        "hold, strict",
        "hold, r = 3",
        "hold, r = 9",
        "hold, r = 15",
    ]


def test_the_page_says_whether_the_whole_vocabulary_would_have_chosen_text(report: dict[str, Any]) -> None:
    page = (report["output"] / "bench.md").read_text()
    assert report["head"]["positions"] == 28 and HeadCheck(**report["head"]).sentence() in page


def test_positions_where_text_would_have_won_are_counted(frames: Path) -> None:
    plain, seen = load_plain(BenchOptions(frames=frames, device="cpu")), read_frames(frames, 4)
    actions = [plain.act(image, seen.instruction) for image in seen.images]
    config, head = plain.decoder.target.config, plain.decoder.target.language_model.lm_head.weight
    head[: config.first_action_id] = 0.0
    head[config.vocabulary_size :] = 0.0
    assert check_head(plain, seen, actions) == HeadCheck(positions=28, text=0)
    head[: len(actions[0].tokens)] = 2.0 * head[list(actions[0].tokens)]
    assert 7 <= check_head(plain, seen, actions).text <= 28


def test_rows_with_imposed_lengths_say_so_and_claim_no_tokens(report: dict[str, Any]) -> None:
    imposed = [row for row in report["rows"] if row["kind"] == "imposed"]
    assert len(imposed) == 8 and all("imposed" in row["name"] and row["same_actions"] is None for row in imposed)
    assert all("imposed" in line for line in table_lines(report) if "libero_goal" in line)


def test_a_row_that_needs_a_gpu_is_empty_and_brings_the_command_that_fills_it(report: dict[str, Any]) -> None:
    (row,) = (row for row in report["rows"] if row["kind"] == "absent")
    assert "milliseconds" not in row
    assert row["note"].startswith("specvla bench --size 7b") and "--device cuda" in row["note"]
    assert row["note"] in (report["output"] / "bench.md").read_text()


def test_figures_add_up(report: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in report["rows"] if row["kind"] != "absent"}
    for row in rows.values():
        times = row["milliseconds"]
        assert set(times) == PHASES
        assert sum(times[name]["mean"] for name in PHASES - {"total"}) == pytest.approx(times["total"]["mean"])
        assert all(time["median"] <= time["p95"] <= time["p99"] for time in times.values())
        assert row["actions_per_second"] == pytest.approx(1e3 / times["total"]["mean"])
        assert row["forwards"] == pytest.approx(np.mean([1 + len(rounds) for rounds in row["accepted"]]))
        assert row["tokens_per_forward"] == pytest.approx(7 / row["forwards"])
        assert row["floor_ms"] == pytest.approx(1e3 * row["moved"] / report["bandwidth"])
        assert row["over_floor"] == pytest.approx(times["total"]["mean"] / row["floor_ms"])
    assert rows["greedy"]["ratio"] == 1 and rows["greedy"]["forwards"] == 7
    assert rows["hold, strict"]["same_actions"] == 1, "strict decoding changes nothing"
    assert rows["hold, strict"]["accepted"][0] == (0,) * 6, "the warm-up does not reach into the measurement"
    assert rows["hold, strict"]["accepted"][1] == (5,), "the second image is the first again"
    assert rows["hold, strict"]["moved"] < rows["greedy"]["moved"] == rows["transformers, greedy"]["moved"]


def test_the_page_begins_with_its_command_and_says_what_it_ran_on(report: dict[str, Any]) -> None:
    page = (report["output"] / "bench.md").read_text()
    assert page.startswith("    specvla bench --draft hold --imposed paper --frames")
    for what in ("processor", "threads", "torch", "transformers", "copy bandwidth", "matrix rate", "load"):
        assert f"- {what}: " in page
    assert "4 images in turn (recorded: frames.npz)" in page


def test_the_plot_has_a_bar_for_each_row_that_was_measured(report: dict[str, Any]) -> None:
    svg = (report["output"] / "bench.svg").read_text()
    assert all(row["name"] in svg for row in report["rows"] if row["kind"] != "absent")
    assert all(f">{phase}<" in svg for phase in PHASES - {"total"})


def test_one_action_of_each_draft_is_drawn(report: dict[str, Any]) -> None:
    svg = (report["output"] / "timeline.svg").read_text()
    assert ">greedy<" in svg and ">hold, strict<" in svg and ">hold, r = 3<" not in svg
    assert "timeline.svg" in (report["output"] / "bench.md").read_text()


def test_the_timeline_has_every_pass_in_order_and_arithmetic_inside(frames: Path) -> None:
    recorded = read_frames(frames, 2)
    plain = load_plain(BenchOptions(size="tiny", device="cpu"))
    timeline = record_timeline("greedy", plain, recorded.images, recorded.instruction)
    passes = sorted(timeline.passes, key=lambda span: span.start)
    assert [span.name for span in passes] == ["vision", "prefill", *["verify"] * 6]
    assert all(first.end <= second.start for first, second in pairwise(passes))
    products = [span for span in timeline.operations if span.name.startswith("matrix products")]
    for one in passes:
        assert any(product.start < one.end and one.start < product.end for product in products), one


def test_the_packages_own_kernels_count_as_what_they_compute() -> None:
    products = {"product_of_a_row", "product_of_rows", "attend"}
    others = {"add_rms_norm", "rotate_and_store", "gate", "quantise_rows"}
    assert {name for name in products | others if _is_product(SimpleNamespace(name=name))} == products


def test_the_command_in_the_report_measures_the_same_again(
    report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[BenchOptions] = []
    monkeypatch.setattr("specvla_ros.bench.command.run_bench", lambda options, console: asked.append(options))
    absent = next(row for row in report["rows"] if row["kind"] == "absent")
    for command in (report["command"], absent["note"]):
        result = CliRunner().invoke(app, command.split()[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert [options.command() for options in asked] == [report["command"], absent["note"]]


@pytest.mark.parametrize("checkpoint", ["", "openvla"])
@pytest.mark.parametrize("fast", [True, False])
def test_the_command_renders_as_it_was_rendered(checkpoint: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BenchOptions] = []
    monkeypatch.setattr("specvla_ros.bench.command.run_bench", lambda options, console: asked.append(options))
    options = BenchOptions(checkpoint=checkpoint, fast_rendering=fast)
    CliRunner().invoke(app, options.command().split()[1:], catch_exceptions=False)
    assert asked[0].fast_rendering == fast


def test_random_weights_take_the_lengths_that_another_run_measured(report: dict[str, Any], frames: Path) -> None:
    source = report["output"] / "bench.json"
    options = BenchOptions(
        size="tiny", frames=frames, drafts=("hold+eagle",), imposed=(str(source),), device="cpu", output=source.parent
    )
    rows = run_bench(options, Console(quiet=True))["rows"]
    assert [row["kind"] for row in rows] == ["measured"] * 2 + ["imposed"] * 4
    found = {row["name"]: row["tokens_per_forward"] for row in rows[2:]}
    measured = {row["name"]: row for row in report["rows"]}
    for threshold in ("strict", "r = 3", "r = 9", "r = 15"):
        name = f"hold+eagle, imposed as hold, {threshold} in {source.parent.name}"
        assert found[name] == pytest.approx(measured[f"hold, {threshold}"]["tokens_per_forward"])


def test_lengths_from_two_folders_of_one_name_are_two_rows(frames: Path, tmp_path: Path) -> None:
    sources = []
    for place, rounds in (("here", [5]), ("there", [0] * 6)):
        sources.append(tmp_path / place / "bench" / "bench.json")
        sources[-1].parent.mkdir(parents=True)
        row = {"name": "hold, strict", "kind": "measured", "draft": "hold", "accepted": [rounds]}
        sources[-1].write_text(json.dumps({"rows": [row]}))
    options = BenchOptions(
        size="tiny", frames=frames, drafts=("hold",), imposed=tuple(map(str, sources)), device="cpu", output=tmp_path
    )
    first, second = run_bench(options, Console(quiet=True))["rows"][2:]
    assert first["forwards"] < 7 == second["forwards"]


def test_every_row_is_made_on_the_gpu_that_was_asked_for(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[torch.device] = []

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        inside.append(device)
        yield
        inside.pop()

    def first_row(*_: Any) -> None:
        assert inside == [torch.device("cpu")]
        raise ConfigurationError("far enough")

    monkeypatch.setattr("specvla_ros.bench.command.current", current)
    monkeypatch.setattr("specvla_ros.bench.command.entrants", first_row)
    with pytest.raises(ConfigurationError, match="far enough"):
        run_bench(BenchOptions(size="tiny", frames=frames, device="cpu", output=tmp_path), Console(quiet=True))


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"size": "13b"}, "expected 7b or tiny"),
        ({"size": "7b", "checkpoint": "openvla"}, "give a checkpoint and its unnorm_key, or a size"),
        ({"drafts": ("none",)}, "always there"),
        ({"count": 1}, "at least 2 images"),
    ],
)
def test_options_that_do_not_fit_are_refused(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        BenchOptions(**fields)


def test_what_is_asked_for_twice_is_one_row() -> None:
    options = BenchOptions(drafts=("hold", "linear", "hold"), imposed=("paper", "paper"))
    assert options.draft_names == ("hold", "linear") and options.distributions == ("paper",)


def test_a_trained_draft_does_not_go_with_random_weights(frames: Path, tmp_path: Path) -> None:
    options = BenchOptions(size="tiny", drafts=("/some/draft",), frames=frames, device="cpu", output=tmp_path)
    with pytest.raises(ConfigurationError, match="expected hold, linear or eagle"):
        run_bench(options, Console(quiet=True))


def table_lines(report: dict[str, Any]) -> list[str]:
    return [line for line in (report["output"] / "bench.md").read_text().splitlines() if line.startswith("|")]


def test_demonstrations_in_liberos_layout_are_frames(tmp_path: Path) -> None:
    frames = read_frames(record(tmp_path, "pick_up_the_bowl", steps=8), 5)
    assert len(frames.images) == 5 and frames.images[0].shape == (128, 128, 3)
    assert frames.instruction == "pick up the bowl" and frames.source == "recorded: pick_up_the_bowl_demo.hdf5"


@pytest.mark.parametrize(
    ("arrays", "error", "part"),
    [
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, DataError, "expected an .npz with both"),
        ({"images": np.zeros((1, 8, 8, 3), np.uint8), "instruction": "go"}, DataError, "expected at least 2"),
        ({"images": np.zeros((3, 8, 8, 3)), "instruction": "go"}, ImageError, "uint8"),
    ],
)
def test_a_recording_that_cannot_be_used_is_refused(
    tmp_path: Path, arrays: dict[str, Any], error: type[Exception], part: str
) -> None:
    np.savez(tmp_path / "frames.npz", **arrays)
    with pytest.raises(error, match=part):
        read_frames(tmp_path / "frames.npz", 10)
    with pytest.raises(DataError, match="is no file"):
        read_frames(tmp_path / "nowhere.npz", 10)


def test_without_a_simulator_the_images_are_noise_and_the_table_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(suite: str, index: int) -> None:
        raise SimulationError("LIBERO is not installed")

    monkeypatch.setattr("specvla_ros.bench.frames.find_task", absent)
    frames = render_frames(FakePolicy(), 3, fast_rendering=True)
    assert len(frames.images) == 3 and not np.array_equal(frames.images[0], frames.images[1])
    assert frames.source.startswith("noise") and "LIBERO is not installed" in frames.source


def test_images_are_those_of_an_episode_that_the_policy_drives(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task("libero_spatial", 0, "do task 0", Path("scene"), Path("states"))
    scene = FakeEnvironment({"suite": task.suite, "task": 0})
    monkeypatch.setattr("specvla_ros.bench.frames.find_task", lambda suite, index: task)
    monkeypatch.setattr("specvla_ros.bench.frames.LiberoEnvironment", lambda *_, **__: scene)
    frames = render_frames(FakePolicy(), 3, fast_rendering=True)
    assert [image[0, 0, 0] for image in frames.images] == [0, 7, 14]
    assert frames.instruction == "do task 0" and frames.source.startswith("rendered: libero_spatial task 0")


def test_json_on_standard_output_stands_alone(frames: Path, tmp_path: Path) -> None:
    words = ["bench", "--size", "tiny", "--draft", "hold", "--frames", str(frames), "--device", "cpu"]
    result = CliRunner().invoke(app, [*words, "--output", str(tmp_path), "--json", "-"], catch_exceptions=False)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads((tmp_path / "bench.json").read_text())
