from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from fake_environment import FakeEnvironment
from models import random_head, random_inputs, random_target
from report_folders import episode, write_run

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.evaluation.rollout import Environment
from specvla_ros.evaluation.runs import read_runs
from specvla_ros.report.case_study import ACTIONS, CaseRound, CaseStudy, observing, read_case_study
from specvla_ros.report.report import add_case_study, write_report
from specvla_ros.report.result_tables import case_table
from specvla_ros.report.svg import inline_svg, style
from specvla_ros.report.tree_picture import draw_case_study
from specvla_ros.sim.libero import Task
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.eagle import EagleDrafter, TreeConfig

STUDY = CaseStudy(
    evaluation="hold_r9",
    suite="libero_object",
    task=0,
    language="do task 0",
    episode=0,
    step=3,
    draft="hold",
    thresholds=(9, 9, 9, 9, 9, 9, 0),
    first=100,
    # x is decided; y is drafted 7 too high and z 2 too low; roll is 40 off and refused.
    rounds=(
        CaseRound((100, 57, 28, 90), (0, 0, 1, 2), (50, 30, 50, 0), (0, 1, 2)),
        CaseRound((50, 10, 11), (0, 0, 0), (10, 20, 0), (0, 1)),
        CaseRound((20,), (0,), (255,), (0,)),
    ),
    picture="data:image/jpeg;base64,",
)


class SceneWithoutSimulator(Rig):
    """The package's own model before a fake camera."""

    def tasks(self, options: EvaluationOptions) -> list[Task]:
        return [Task(options.suite, 0, "do task 0", Path("scene"), Path("states"))]

    def create_environment(self, options: EvaluationOptions, task: Task) -> Environment:
        return FakeEnvironment({"suite": task.suite, "task": task.index})


def test_the_table_says_where_each_token_came_from_and_how_far_it_is_off() -> None:
    assert STUDY.committed == [100, 57, 28, 50, 10, 20, 255]
    assert [row[:5] for row in case_table(STUDY).rows] == [
        ["x", "prefill", "100", "100", "0"],
        ["y", "draft, round 1", "57", "50", "+7"],
        ["z", "draft, round 1", "28", "30", "-2"],
        ["roll", "target, round 1", "50", "50", "0"],
        ["pitch", "draft, round 2", "10", "10", "0"],
        ["yaw", "target, round 2", "20", "20", "0"],
        ["gripper", "target, round 3", "255", "255", "0"],
    ]


def test_the_picture_names_every_token_that_the_target_judged() -> None:
    with style():
        drawing = inline_svg(draw_case_study(STUDY), "case_study")
    for text in ("57 (+7)", "28 (-2)", "90 (+40)", "10 (=)", "11 (+1)", ">255<", "round 3: 0 drafted, 0 accepted"):
        assert text in drawing


def test_the_rounds_in_bins_add_up_to_the_action() -> None:
    target = random_target(3)
    drafter = EagleDrafter(target, random_head(3), capacity=300, tree=TreeConfig())
    decoder = SpeculativeDecoder(target, drafter, capacity=300)
    with observing(decoder) as rounds:
        tokens, stats = decoder.decode(*random_inputs(3), (255,) * 6 + (0,))
    last = target.config.action_ids[-1]
    seen = [CaseRound.of(one, target.config.action_ids) for one in rounds]
    assert [bin for one in seen for bin in one.committed] == [last - token for token in tokens[1:]]
    assert [abs(one.distance(node)) for one in seen for node in one.path[1:]] == [
        distance for one in rounds for distance in [one.distances[node] for node in one.path[1:]]
    ]
    assert sum(len(one.path) - 1 for one in seen) == sum(stats.accepted)
    decoder.decode(*random_inputs(3), (0,) * 7)
    assert len(rounds) == len(seen), "nobody looks any more"


def test_an_action_of_an_evaluation_is_played_again_and_drawn(tmp_path: Path) -> None:
    write_run(tmp_path / "hold_r9", [episode()], draft="hold", threshold=9)
    add_case_study(tmp_path, "hold_r9", SceneWithoutSimulator())
    study = read_case_study(tmp_path)
    assert study is not None and study.thresholds == (9,) * 6 + (0,) and 0 < study.step < ACTIONS
    assert len(study.committed) == 7 and study.picture.startswith("data:image/jpeg;base64,/9j/")
    assert CaseStudy.from_dict(asdict(study)) == study
    html = write_report(tmp_path, tmp_path / "report").read_text()
    assert "Case study</h2>" in html and "--case-study hold_r9" in html and study.picture in html


def test_plain_decoding_has_no_drafts_to_look_at(tmp_path: Path) -> None:
    write_run(tmp_path, [episode()])
    with pytest.raises(ConfigurationError, match="shows what a draft proposed"):
        add_case_study(tmp_path, ".", SceneWithoutSimulator())
    assert read_runs(tmp_path) and read_case_study(tmp_path) is None


def test_a_case_study_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "case_study.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"case_study\.json is not a case study"):
        read_case_study(tmp_path)
