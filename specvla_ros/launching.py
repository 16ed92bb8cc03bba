"""What the launch files share: every parameter of a node is a launch argument of the same name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext
from specvla_ros.errors import ConfigurationError
from specvla_ros.nodes.parameters import ParameterSpec
from specvla_ros.share import PACKAGE, share_folder

YAML_VALUE = "the YAML file's"
FASTDDS_PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"


def config_argument(name: str, file: str) -> DeclareLaunchArgument:
    """The argument that names a node's YAML file."""
    return DeclareLaunchArgument(
        name,
        default_value=str(share_folder() / "config" / file),
        description=f"YAML file with the parameters of {file}",
    )


def parameters_in_file(context: LaunchContext, argument: str, name: str) -> dict[str, Any]:
    """What the YAML file that an argument gives holds for a node of that name, in whatever namespace.

    Raises:
        ConfigurationError: there is no such file, or it is about other nodes; ROS would start the node without it.
    """
    file = Path(LaunchConfiguration(argument).perform(context))
    if not file.is_file():
        raise ConfigurationError(f"{argument}:={file} is no file; expected a YAML file of parameters")
    found = [values for node, values in _nodes(yaml.safe_load(file.read_text())) if node in (name, "*", "**")]
    if not found:
        raise ConfigurationError(
            f"{argument}:={file} holds nothing for this node; expected {name}: or /**: above ros__parameters:"
        )
    return {key: value for values in found for key, value in values.items()}


def parameter_arguments(
    specs: Iterable[ParameterSpec], defaults: Mapping[str, str] | None = None
) -> list[DeclareLaunchArgument]:
    """One argument for each parameter; left empty, the YAML file's value counts.

    Args:
        defaults: of those that count although the YAML file may say something else.
    """
    texts = {spec.name: "" for spec in specs} | dict(defaults or {})
    return [
        DeclareLaunchArgument(
            spec.name,
            default_value=texts[spec.name],
            description=f"{spec.description} [default: {texts[spec.name] or YAML_VALUE}]",
        )
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

    Raises:
        ConfigurationError: there is no YAML file for the node, or an argument does not fit its parameter.
    """
    parameters_in_file(context, config, name)  # or the node would go by its defaults
    given = {spec.name: LaunchConfiguration(spec.name).perform(context) for spec in specs}
    overrides = {spec.name: _typed(spec, given[spec.name]) for spec in specs if given[spec.name] != ""}
    return Node(
        package=PACKAGE,
        executable=executable,
        name=name,
        output="screen",
        emulate_tty=True,
        parameters=[LaunchConfiguration(config), _parameter_file(name, {**overrides, **(fixed or {})})],
        **keywords,
    )


def room_for_images() -> list[SetEnvironmentVariable]:
    """Fast DDS with enough shared memory for camera images, unless the user has profiles of their own."""
    if FASTDDS_PROFILES in os.environ:
        return []
    return [SetEnvironmentVariable(FASTDDS_PROFILES, str(share_folder() / "config" / "fastdds.xml"))]


def end_on_failure(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """For `on_exit`: whoever waits for a node that could not start would wait for its time-out."""
    return Shutdown(reason=f"{event.process_name} failed") if event.returncode else None


def _nodes(content: Any, node: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each node's name and parameters; namespaces stand before the name or around it."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == "ros__parameters":
            yield node, value or {}
        else:
            yield from _nodes(value, str(key).rsplit("/", 1)[-1])


def _parameter_file(name: str, values: dict[str, Any]) -> str:
    """A file with a node's parameters, in whatever namespace it is; JSON is YAML in which every text stands in quotes.

    launch_ros would write 0801, 1e5 or y without them, and rcl then reads a number or a boolean.
    """
    with NamedTemporaryFile("w", encoding="utf-8", prefix="launch_params_", suffix=".yaml", delete=False) as file:
        json.dump({f"/**/{name}": {"ros__parameters": values}}, file, ensure_ascii=False)
    return file.name


def _typed(spec: ParameterSpec, text: str) -> Any:
    """The argument's text as the parameter's type: a path that looks like a number stays a string.

    rcl silently keeps the YAML file's value where a later file gives another type, so that is refused here.
    """
    if isinstance(spec.default, str):
        return text
    try:
        value = float(text) if isinstance(spec.default, float) else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        value = text
    if isinstance(value, list) and _shape(spec.default) == {float} and _shape(value) <= {float, int}:
        value = [float(number) for number in value]
    if _shape(value) != _shape(spec.default):
        raise ConfigurationError(f"{spec.name}:={text} does not fit; expected a value like {spec.default}")
    return value


def _shape(value: Any) -> Any:
    return {type(item) for item in value} if isinstance(value, list) else type(value)
