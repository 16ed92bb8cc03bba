"""What the launch files share: every parameter of a node is a launch argument of the same name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext
from specvla_ros.nodes.parameters import ParameterSpec
from specvla_ros.share import PACKAGE, share_folder


def config_argument(name: str, file: str) -> DeclareLaunchArgument:
    """The argument that names a node's YAML file."""
    return DeclareLaunchArgument(
        name,
        default_value=str(share_folder() / "config" / file),
        description=f"YAML file with the parameters of {file}",
    )


def parameter_arguments(specs: Iterable[ParameterSpec]) -> list[DeclareLaunchArgument]:
    """One argument for each parameter; left empty, the YAML file's value counts."""
    return [
        DeclareLaunchArgument(spec.name, default_value="", description=f"{spec.description} [default: the YAML file's]")
        for spec in specs
    ]


def configured_node(
    context: LaunchContext,
    executable: str,
    name: str,
    config: str,
    specs: Iterable[ParameterSpec],
    fixed: dict[str, Any] | None = None,
    **keywords: Any,
) -> Node:
    """A node with its YAML file, overridden by the launch arguments that were given, and by `fixed`.

    Args:
        config: name of the argument that `config_argument` declared.
        keywords: handed to `launch_ros.actions.Node`.
    """
    given = {spec.name: LaunchConfiguration(spec.name).perform(context) for spec in specs}
    overrides = {spec.name: _typed(given[spec.name], spec.default) for spec in specs if given[spec.name] != ""}
    return Node(
        package=PACKAGE,
        executable=executable,
        name=name,
        output="screen",
        emulate_tty=True,
        parameters=[LaunchConfiguration(config).perform(context), {**overrides, **(fixed or {})}],
        **keywords,
    )


def _typed(text: str, default: Any) -> Any:
    """The argument's text as the parameter's type: a path that looks like a number stays a string."""
    if isinstance(default, str):
        return text
    value = yaml.safe_load(text)
    return float(value) if isinstance(default, float) else value
