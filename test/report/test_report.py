from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from report_folders import episode, write_run, write_speed

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.history import Session, add_session
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.runs import read_runs
from specvla_ros.report.films import film_path
from specvla_ros.report.group import grouped
from specvla_ros.report.report import write_report
from specvla_ros.report.speed import read_speeds

PLAIN_ROUNDS = (0,) * 6


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def sweep(folder: Path) -> None:
    """Plain decoding and two thresholds of a draft."""
    plain = [episode(0, 0, True, 10, PLAIN_ROUNDS), episode(0, 1, False, 30, PLAIN_ROUNDS)]
    write_run(folder / "none_r0", plain)
    for threshold, rounds in ((0, (1, 3)), (9, (5,))):
        write_run(folder / f"hold_r{threshold}", [episode(rounds=rounds)], draft="hold", threshold=threshold)


def test_the_main_table_pools_actions_and_sets_published_figures_apart(tmp_path: Path) -> None:
    write_run(
        tmp_path / "hold_r3",
        [
            episode(0, 0, True, 10, (5,), milliseconds={"total": (3.0, 4.0)}),
            episode(1, 0, False, 30, PLAIN_ROUNDS, milliseconds={"total": (5.0, 8.0)}, deviations=(0.0,) * 7),
        ],
        draft="hold",
        threshold=3,
    )
    page = write_report(tmp_path, tmp_path / "report")
    ours, *foreign = rows(page.parent / "libero_object_main.csv")
    # Forwards: 10 actions of 2 and 30 of 7. Drafts: 50 in 10 + 180 rounds. Off by 1 in one token of seven, in 10 of 40.
    assert ours == {
        "draft": "hold",
        "threshold": "3",
        "origin": "measured",
        "success %": "50.0",
        "solved": "1",
        "solved, of": "2",
        "95 % interval, low": "9.5",
        "95 % interval, high": "90.5",
        "greedy, same starts": "",
        "lost": "",
        "won": "",
        "p, Holm": "",
        "steps": "20.0",
        "tokens per forward": f"{7 * 40 / 230:.2f}",
        "drafts per round": f"{50 / 190:.2f}",
        "forwards per action": f"{230 / 40:.2f}",
        "off by [bins]": f"{10 / 7 / 40:.2f}",
        "ms median": "",
        "ms p95": "",
        "speed-up": "",
    }
    assert [(row["origin"], row["success %"], row["speed-up"]) for row in foreign] == [
        ("published, A100", "89.0", "1.00"),
        ("published, A100", "89.0", "1.15"),
        ("published, A100", "85.0", "1.38"),
    ]
    tasks = rows(page.parent / "libero_object_tasks.csv")
    assert [(row["solved"], row["solved, of"]) for row in tasks] == [("1", "1"), ("0", "1"), ("1", "2")]
    html = page.read_text()
    assert html.index('class="foreign"') < html.index("published, A100") and "another model" in html
    assert "| hold | 3 | measured | 50.0 | 1/2 |" in (page.parent / "libero_object_main.md").read_text()


def test_speed_ups_are_those_measured_on_the_same_weights(tmp_path: Path) -> None:
    sweep(tmp_path)
    run = write_run(tmp_path / "hold_r9", [episode()], draft="hold", threshold=9)
    write_speed(tmp_path, run, {("none", 0): 1.0, ("hold", 9): 1.5})
    write_speed(tmp_path / "none_r0", run, {("hold", 0): 7.0}, fingerprint="another")
    table = rows(write_report(tmp_path, tmp_path / "report").parent / "libero_object_main.csv")
    assert [row["speed-up"] for row in table[:3]] == ["1.00", "", "1.50"]
    times = [(row["ms median"], row["ms p95"]) for row in table[:3]]
    assert times == [("11.0", "13.0"), ("", ""), ("11.0", "13.0")], "not what the busy machine of the episodes took"


def test_of_two_measurements_of_the_same_the_one_of_more_frames_counts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "hold_r9", [episode()], draft="hold", threshold=9)
    for name, frames, speed_up in (("a", 10, 3.0), ("b", 200, 1.5), ("c", 10, 2.0)):
        (tmp_path / name).mkdir()
        write_speed(tmp_path / name, run, {("hold", 9): speed_up}, frames=frames)
    table = rows(write_report(tmp_path, tmp_path / "report").parent / "libero_object_main.csv")
    assert table[0]["speed-up"] == "1.50"


def test_a_speed_up_on_other_pictures_is_another_tables(tmp_path: Path) -> None:
    for name, fast, speed_up in (("fast", True, 1.5), ("stock", False, 1.2)):
        run = write_run(tmp_path / name, [episode()], draft="hold", fast_rendering=fast)
        write_speed(tmp_path / name, run, {("hold", 0): speed_up})
    page = write_report(tmp_path, tmp_path / "report")
    tables = [rows(page.parent / f"libero_object_fast-rendering-{fast}_main.csv") for fast in (True, False)]
    assert [table[0]["speed-up"] for table in tables] == ["1.50", "1.20"]
    assert not list(page.parent.glob("*_speed_2.csv"))


def test_a_trained_draft_is_recognised_by_its_own_weights(tmp_path: Path) -> None:
    """An evaluation's fingerprint is also of its draft, which plain greedy decoding does not have."""
    drafts = tmp_path / "weights"
    drafts.mkdir()
    (drafts / "draft.safetensors").write_bytes(b"trained")
    plain = write_run(tmp_path / "none_r0", [episode(rounds=PLAIN_ROUNDS)])
    trained = write_run(tmp_path / "weights_r9", [episode()], draft=str(drafts), threshold=9)
    assert plain.conditions()["fingerprint"] != trained.conditions()["fingerprint"]
    write_speed(tmp_path, trained, {(str(drafts), 9): 1.5})
    page = write_report(tmp_path, tmp_path / "report")
    assert rows(page.parent / "libero_object_main.csv")[1]["speed-up"] == "1.50"


def test_two_measurements_in_one_folder_are_two_tables_and_an_older_file_is_read_too(tmp_path: Path) -> None:
    run = write_run(tmp_path / "hold_r9", [episode()], draft="hold", threshold=9)
    write_run(tmp_path / "linear_r3", [episode()], draft="linear", threshold=3)
    write_speed(tmp_path, run, {("none", 0): 1.0, ("hold", 9): 1.5})
    old = json.loads((tmp_path / "speed_libero_object_hold.json").read_text())
    for one in (old, *old["rows"]):
        one.pop("tasks" if one is old else "fingerprint")
    (tmp_path / "speed.json").write_text(json.dumps({**old, "task": 4}))
    (tmp_path / "speed_libero_object_hold.json").unlink()
    write_speed(tmp_path, run, {("none", 0): 1.0, ("linear", 3): 1.2})
    page = write_report(tmp_path, tmp_path / "report")
    first, second = (rows(page.parent / f"libero_object_speed{number}.csv") for number in ("", "_2"))
    assert [row["draft"] for row in (*first, *second)] == ["none", "hold", "none", "linear"]
    html = page.read_text()
    assert "50 frames of task 4," in html and "bootstrap over the frames" in html
    assert "50 frames of tasks 0, 1, from" in html and "bootstrap over the tasks" in html
    assert "Speed-up: hold</h3>" in html and "Speed-up: linear</h3>" in html
    assert [row["speed-up"] for row in rows(page.parent / "libero_object_main.csv")[:2]] == ["1.50", "1.20"]


@pytest.mark.parametrize(
    ("of_row", "changed"),
    [
        (False, {"tasks": []}),
        (False, {"suite": None}),
        (False, {"frames": None}),
        (True, {"draft": None}),
        (True, {"threshold": None}),
        (True, {"mean_ms": "fast"}),
        (True, {"interval": [1.0]}),
    ],
)
def test_a_measurement_of_speed_that_was_edited_by_hand_is_named(
    tmp_path: Path, of_row: bool, changed: dict[str, Any]
) -> None:
    """None: the entry was deleted."""
    run = write_run(tmp_path, [episode()], draft="hold")
    write_speed(tmp_path, run, {("none", 0): 1.0, ("hold", 0): 1.5})
    (file,) = tmp_path.glob("speed*.json")
    speed = json.loads(file.read_text())
    edited = speed["rows"][1] if of_row else speed
    for name, value in changed.items():
        edited[name] = value
        if value is None:
            del edited[name]
    file.write_text(json.dumps(speed))
    with pytest.raises(ConfigurationError, match=f"{file.name} cannot be read .*; delete it and measure again"):
        read_speeds(tmp_path)


def test_a_checkpoint_that_was_moved_is_the_same_one_and_another_is_not(tmp_path: Path) -> None:
    write_run(tmp_path / "none_r0", [episode(rounds=PLAIN_ROUNDS)])
    for threshold, changed in {
        3: {"checkpoint": "/moved/model"},
        9: {"checkpoint": "/b/model", "fingerprint": "b", "settings": "b"},
    }.items():
        folder = tmp_path / f"hold_r{threshold}"
        conditions = write_run(folder, [episode()], draft="hold", threshold=threshold).conditions()
        (folder / "options.json").write_text(json.dumps({**conditions, **changed}))
    first, second = grouped(read_runs(tmp_path), {})
    assert [run.threshold_text for run in first.runs] == [
        "0",
        "3",
    ] and first.name == "libero_object_libero_spatial_small"
    assert [run.threshold_text for run in second.runs] == ["9"] and second.name == "libero_object_model"


def test_checkpoints_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("first", "second"):
        checkpoint = tmp_path / name / "checkpoint"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.safetensors").write_text(name)
        write_run(tmp_path / "runs" / name, [episode(rounds=PLAIN_ROUNDS)], checkpoint=str(checkpoint))
    groups = grouped(read_runs(tmp_path / "runs"), {})
    assert [(one.title, one.name) for one in groups] == [
        ("libero_object, first/checkpoint", "libero_object_first-checkpoint"),
        ("libero_object, second/checkpoint", "libero_object_second-checkpoint"),
    ]


def test_seeds_are_not_mixed(tmp_path: Path) -> None:
    for seed in (0, 7):
        write_run(tmp_path / f"none_r0_seed-{seed}", [episode(rounds=PLAIN_ROUNDS)], seed=seed)
        write_run(tmp_path / f"hold_r9_seed-{seed}", [episode()], draft="hold", threshold=9, seed=seed)
    groups = grouped(read_runs(tmp_path), {})
    assert [(one.title, one.name) for one in groups] == [
        ("libero_object, seed 0", "libero_object_seed-0"),
        ("libero_object, seed 7", "libero_object_seed-7"),
    ]
    assert [[run.conditions["seed"] for run in one.runs] for one in groups] == [[0, 0], [7, 7]]


def test_other_weights_and_other_scenes_have_tables_of_their_own(tmp_path: Path) -> None:
    for name, changed in {"full": {}, "float8": {"weights": "float8"}, "short": {"max_steps": 50}}.items():
        write_run(tmp_path / f"{name}_none", [episode(rounds=PLAIN_ROUNDS)], **changed)
        write_run(tmp_path / f"{name}_hold", [episode()], draft="hold", **changed)
    speeds = {"full": 1.5, "float8": 1.2}
    for weights, speed_up in speeds.items():
        (tmp_path / weights).mkdir()
        run = EvaluationOptions("libero_object", tmp_path, draft="hold", fast_rendering=True, weights=weights)
        write_speed(tmp_path / weights, run, {("none", 0): 1.0, ("hold", 0): speed_up})
    page = write_report(tmp_path, tmp_path / "report")
    names = ("max-steps-0_weights-full", "max-steps-0_weights-float8", "max-steps-50_weights-full")
    tables = [rows(page.parent / f"libero_object_{name}_main.csv")[:2] for name in names]
    assert [[row["draft"] for row in table] for table in tables] == [["none", "hold"]] * 3
    assert [table[1]["greedy, same starts"] for table in tables] == ["1"] * 3
    assert [table[1]["speed-up"] for table in tables[:2]] == ["1.50", "1.20"]
    assert "libero_object, max steps 0, weights float8" in page.read_text()


def test_what_has_no_data_is_left_out_and_the_command_that_makes_it_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, [episode(rounds=PLAIN_ROUNDS)])
    html = write_report(tmp_path, tmp_path / "report").read_text()
    headings = re.findall(r"<h2[^>]*>([^<]*)</h2>", html)
    assert headings == [
        "Words",
        "libero_object: success, accept length, speed",
        "Commands and machine",
        "Not in this report",
    ]
    missing = html[html.index("Not in this report</h2>") :]
    for what in ("threshold sweep", "speed-up", "best threshold in real time", "success by latency", "films"):
        assert re.search(rf"# libero_object: {what}\nspecvla eval --suite libero_object .*--output", missing)
    assert "case study" not in missing, "without a draft there is nothing to look at"


def test_a_sweep_in_lockstep_and_real_time_has_every_section(tmp_path: Path) -> None:
    sweep(tmp_path)
    for latency, threshold in (("measured", 3), ("measured", 9), ("fixed:100", 9)):
        folder = tmp_path / f"hold_r{threshold}_{latency[:5]}"
        write_run(folder, [episode()], draft="hold", threshold=threshold, latency=latency)
    page = write_report(tmp_path, tmp_path / "report")
    headings = [heading.split(": ")[-1] for heading in re.findall(r"<h2[^>]*>([^<]*)</h2>", page.read_text())]
    assert headings[1:5] == [
        "success, accept length, speed",
        "threshold sweep",
        "where drafts are accepted",
        "real time",
    ]
    drawings = {file.stem.removeprefix("libero_object_") for file in page.parent.glob("*.svg")}
    assert drawings == {"sweep", "rounds", "positions", "realtime_threshold", "realtime_latency"}
    assert "--case-study hold_r9" in page.read_text()


def test_the_page_needs_nothing_beside_it_and_follows_a_dark_screen(tmp_path: Path) -> None:
    sweep(tmp_path)
    page = write_report(tmp_path, tmp_path / "report")
    html = page.read_text()
    references = re.findall(r"""(?:src|href|poster|data)=["']([^"']*)|url\(([^)]*)\)""", html)
    assert references and all(one.startswith(("#", "data:")) for pair in references for one in pair if one)
    assert "<script" not in html and "<link" not in html and "@import" not in html
    assert "prefers-color-scheme: dark" in html and "@media print" in html
    for file in page.parent.glob("*.svg"):
        drawing = file.read_text()
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
        assert "var(" not in drawing, "what knows no variables would make it black"
        css, drawn = drawing.split("</style>", 1)
        colours = set(re.findall(r"(?:fill|stroke): #\w+", drawn))
        assert colours and "prefers-color-scheme: dark" in css
        assert all(f'[style*="{colour}"]' in css and f'[style*="{colour}"]' in html for colour in colours)


def test_it_tells_what_the_evaluations_were_made_on_not_what_it_was_made_on(tmp_path: Path) -> None:
    sweep(tmp_path)
    write_run(tmp_path / "hold_r0", [episode(0, 0), episode(0, 1)], draft="hold")
    machines = [{"made": f"2026-01-0{day}", "processor": name, "torch": "2"} for day, name in ((1, "A"), (3, "A"))]
    machines.append({"made": "2026-02-01", "processor": "B", "torch": "2"})
    begun = (("none_r0", 0), ("hold_r0", 0), ("hold_r0", 1))
    for (folder, finished), machine in zip(begun, machines, strict=True):
        add_session(tmp_path / folder, Session(finished, machine))
    page = write_report(tmp_path, tmp_path / "report")
    assert rows(page.parent / "machine.csv") == [
        {"what": "evaluations", "machine 1": "2", "machine 2": "1"},
        {"what": "made", "machine 1": "2026-01-01 to 2026-01-03", "machine 2": "2026-02-01"},
        {"what": "processor", "machine 1": "A", "machine 2": "B"},
        {"what": "torch", "machine 1": "2", "machine 2": "2"},
    ]
    assert "1 of 3 evaluations do not say what they were made on." in page.read_text()


def test_a_start_that_added_no_episode_made_none(tmp_path: Path) -> None:
    write_run(tmp_path, [episode(0, 0), episode(0, 1)])
    for finished, processor in ((0, "broken off"), (0, "A"), (1, "broken off too"), (1, "B"), (2, "nothing left")):
        add_session(tmp_path, Session(finished, {"made": "2026-01-01", "processor": processor}))
    page = write_report(tmp_path, tmp_path / "report")
    assert rows(page.parent / "machine.csv")[2] == {"what": "processor", "machine 1": "A", "machine 2": "B"}


def test_an_emulated_delay_is_called_so_with_the_benchmark_that_it_is_from(tmp_path: Path) -> None:
    for threshold, source in ((0, "bench.json, row x"), (3, ""), (9, "bench.json, row x")):
        folder = tmp_path / f"hold_r{threshold}"
        write_run(folder, [episode()], draft="hold", threshold=threshold, latency="model:60+25")
        add_session(folder, Session(0, {"made": "2026-01-01"}, source))
    html = write_report(tmp_path, tmp_path / "report").read_text()
    assert "60 ms + 25 ms a round: bench.json, row x." in html


def test_the_page_says_which_model_it_is_about(tmp_path: Path) -> None:
    folder = tmp_path / "hold_r0"
    conditions = write_run(folder, [episode()], draft="hold").conditions()
    assert "not OpenVLA-7B" in write_report(tmp_path, tmp_path / "report").read_text()
    (folder / "options.json").write_text(json.dumps({**conditions, "checkpoint": "/models/openvla-7b"}))
    assert "not OpenVLA-7B" not in write_report(tmp_path, tmp_path / "report").read_text()


def test_words_of_others_cannot_become_html(tmp_path: Path) -> None:
    write_run(tmp_path, [episode(rounds=PLAIN_ROUNDS, language="put <b>bold</b> | on it")])
    page = write_report(tmp_path, tmp_path / "report")
    assert "<b>" not in page.read_text() and "&lt;b&gt;bold" in page.read_text()
    assert r"\| on it" in (page.parent / "libero_object_tasks.md").read_text()


def require_ffmpeg() -> None:
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: make venv brings it")


def film(path: Path, frames: int) -> None:
    require_ffmpeg()
    imageio = pytest.importorskip("imageio.v2", reason="imageio is not installed: make venv brings it")
    path.parent.mkdir(exist_ok=True)
    with imageio.get_writer(path, fps=20, codec="libx264", macro_block_size=2) as writer:
        for index in range(frames):
            writer.append_data(np.full((544, 512, 3), index * 10, np.uint8))


def test_a_success_and_a_failure_of_each_task_lie_in_the_page(tmp_path: Path) -> None:
    outcomes = {(0, 0): False, (0, 1): True, (0, 2): True, (1, 0): True}
    run = write_run(tmp_path, [episode(task, state, success) for (task, state), success in outcomes.items()])
    for task, state in outcomes:
        film(film_path(tmp_path, episode(task, state)), frames=5)
    html = write_report(tmp_path, tmp_path / "report").read_text()
    captions = re.findall(r"task (\d), state (\d): .*?, (solved|not solved)", html)
    assert captions == [("0", "1", "solved"), ("0", "0", "not solved"), ("1", "0", "solved")]
    assert html.count('src="data:video/mp4;base64,') == 3
    assert "--videos 3" in html, "the command films as many again"
    assert run.output == tmp_path


def half_a_film(folder: Path) -> Path:
    write_run(folder, [episode()])
    path = film_path(folder, episode())
    path.parent.mkdir()
    path.write_bytes(b"half a film")
    return path


def test_a_film_whose_copy_was_broken_off_is_named(tmp_path: Path) -> None:
    require_ffmpeg()
    path = half_a_film(tmp_path)
    with pytest.raises(ConfigurationError, match=f"{path.name} cannot be read as a film; delete it"):
        write_report(tmp_path, tmp_path / "report")


def test_that_films_cannot_be_read_for_want_of_ffmpeg_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half_a_film(tmp_path)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'imageio\[ffmpeg\]'"):
        write_report(tmp_path, tmp_path / "report")


def test_a_large_film_lies_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specvla_ros.report.films.EMBEDDED", 100)
    write_run(tmp_path, [episode()])
    film(film_path(tmp_path, episode()), frames=5)
    page = write_report(tmp_path, tmp_path / "report")
    sources = re.findall(r'<video[^>]* src="([^":]*)"', page.read_text())
    assert len(sources) == 1 and (page.parent / sources[0]).stat().st_size > 100


def test_films_are_looked_for_where_an_evaluation_puts_them(tmp_path: Path) -> None:
    from specvla_ros.sim.libero import Task

    one = episode(4, 7)
    run = write_run(tmp_path, [one])
    assert film_path(tmp_path, one) == run.film(Task(one.suite, one.task, "", Path(), Path()), one.episode)


def test_a_folder_without_results_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"holds no finished episode; expected options\.json and episodes\.jsonl"
    ):
        write_report(tmp_path, tmp_path / "report")
    write_run(tmp_path / "hold_r0", [episode()])
    (tmp_path / "hold_r0" / "episodes.jsonl").write_text('{"task": 0}\n')
    with pytest.raises(ConfigurationError, match=r"line 1 of .* is not an episode's result"):
        write_report(tmp_path, tmp_path / "report")
    (tmp_path / "hold_r0" / "options.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"options\.json cannot be read"):
        write_report(tmp_path, tmp_path / "report")


def test_an_evaluation_whose_conditions_are_not_whole_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "hold_r0", [episode()], draft="hold")
    (tmp_path / "hold_r0" / "options.json").write_text('{"suite": "libero_object"}')
    with pytest.raises(ConfigurationError, match=r"hold_r0.options.json .*draft.*delete the folder to leave it out"):
        write_report(tmp_path, tmp_path / "report")


def test_an_evaluation_that_still_runs_is_reported_so_far(tmp_path: Path) -> None:
    write_run(tmp_path, [episode(0, 0), episode(0, 1)])
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write(json.dumps(episode(0, 2).to_dict())[:40])
    table = rows(write_report(tmp_path, tmp_path / "report").parent / "libero_object_main.csv")
    assert (table[0]["solved"], table[0]["solved, of"]) == ("2", "2")


def test_the_command_writes_into_the_evaluation_by_default(tmp_path: Path) -> None:
    write_run(tmp_path, [episode()])
    command = [sys.executable, "-m", "specvla_ros.cli", "report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"report: {tmp_path / 'report' / 'index.html'}" in done.stdout
    refused = subprocess.run([*command, "--case-study", "x"], capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1 and "holds no evaluation 'x'; expected one of ." in " ".join(refused.stderr.split())
