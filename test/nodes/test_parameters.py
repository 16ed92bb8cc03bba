"""The YAML files are the reference of the parameters: same names, same defaults, each with a comment."""

from __future__ import annotations

from pathlib import Path

import pytest
import rclpy
import yaml

from specvla_ros.errors import ConfigurationError
from specvla_ros.nodes.bridge_parameters import PARAMETERS as BRIDGE
from specvla_ros.nodes.parameters import ParameterSpec, declare
from specvla_ros.nodes.policy_parameters import PARAMETERS as POLICY
from specvla_ros.nodes.policy_parameters import combine_thresholds
from specvla_ros.nodes.replay_node import PARAMETERS as REPLAY
from specvla_ros.nodes.settings import Settings

CONFIG = Path(__file__).parents[2] / "config"
FILES = {"policy.yaml": POLICY, "libero.yaml": BRIDGE, "replay.yaml": REPLAY}


@pytest.mark.parametrize("file", FILES)
def test_the_yaml_file_holds_every_parameter_with_its_default(file: str) -> None:
    content = yaml.safe_load((CONFIG / file).read_text())
    values = content["/**"]["ros__parameters"]
    assert values == {spec.name: spec.default for spec in FILES[file]}
    assert [type(value) for value in values.values()] == [type(spec.default) for spec in FILES[file]]


@pytest.mark.parametrize("file", FILES)
def test_every_parameter_in_the_yaml_file_stands_under_a_comment(file: str) -> None:
    lines = (CONFIG / file).read_text().splitlines()
    body = lines[lines.index("  ros__parameters:") + 1 :]
    assert body[0].lstrip().startswith("#")
    assert sum(line.lstrip().startswith("#") for line in body) >= len(FILES[file]) / 2


def test_the_wiring_of_an_arm_overrides_parameters_that_exist_with_values_that_are_allowed() -> None:
    values = yaml.safe_load((CONFIG / "panda_servo.yaml").read_text())["/**"]["ros__parameters"]
    defaults = {spec.name: spec.default for spec in POLICY}
    settings = Settings.from_values(defaults | values)
    assert values.keys() <= defaults.keys() and settings.twist_frame == "panda_link0"
    fastest = max(settings.speed_limits[:3]) * settings.linear_scale
    assert fastest <= 0.1, "the comment's 10 cm/s"


@pytest.mark.parametrize("spec", [*POLICY, *BRIDGE, *REPLAY], ids=lambda spec: spec.name)
def test_every_parameter_is_described_and_its_default_is_allowed(spec: ParameterSpec) -> None:
    assert len(spec.description) > 10
    assert not spec.choices or spec.default in spec.choices
    numbers = spec.default if isinstance(spec.default, list) else [spec.default]
    assert not spec.range or all(spec.range[0] <= number <= spec.range[1] for number in numbers)


def test_the_readme_names_every_parameter_of_the_policy() -> None:
    readme = (CONFIG.parent / "README.md").read_text()
    assert [spec.name for spec in POLICY if f"`{spec.name}`" not in readme] == []


def test_a_parameter_that_the_node_does_not_have_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "-p", "speed_limit:=0.1", "-p", "threshold:=3"], context=context)
    node = rclpy.create_node("specvla", context=context)
    assert declare(node, POLICY)["threshold"] == 3
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert "speed_limit: given, but this node has no such parameter" in capfd.readouterr().err


def test_one_threshold_leaves_the_gripper_exact_and_single_dimensions_override_it() -> None:
    assert combine_thresholds(9, [-1] * 6 + [0]) == (9, 9, 9, 9, 9, 9, 0)
    assert combine_thresholds(9, [-1, 1, -1, 2, -1, 3, -1]) == (9, 1, 9, 2, 9, 3, 9)
    for bad in ([-2] * 7, [256] * 7, [1] * 6):
        with pytest.raises(ConfigurationError):
            combine_thresholds(9, bad)
