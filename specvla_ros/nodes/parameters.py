"""Parameters written down once: name, default, meaning, range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node

from specvla_ros.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter of a node; those without `live` are read once, at the start or when the node is configured.

    Attributes:
        range: smallest and largest value of a number, or of each number in a list.
        choices: the words a string may be.
    """

    name: str
    default: Any
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False


def declare(node: Node, specs: Iterable[ParameterSpec], read_only: bool = True) -> dict[str, Any]:
    """Declare the parameters with descriptors and return the values in force.

    Args:
        read_only: refuse every change of those without `live`; otherwise the node's own callback says when one may be.

    Raises:
        rclpy.exceptions.InvalidParameterValueException: a value from YAML or the command line is out of range.
        ConfigurationError: a value is of another type, a string is none of its choices, or a list has another length or
            a number out of range.
    """
    values = {}
    for spec in specs:
        descriptor = ParameterDescriptor(description=spec.description, read_only=read_only and not spec.live)
        if spec.range and isinstance(spec.default, float):
            low, high = spec.range
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        elif spec.range and isinstance(spec.default, int):
            low, high = spec.range
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        elif spec.range and isinstance(spec.default, list):
            low, high = spec.range
            descriptor.additional_constraints = f"{len(spec.default)} values, each from {low:g} to {high:g}"
        if spec.choices:
            descriptor.additional_constraints = f"one of: {', '.join(spec.choices)}"
        try:
            values[spec.name] = node.declare_parameter(spec.name, spec.default, descriptor).value
        except InvalidParameterTypeException as error:
            raise ConfigurationError(f"{error}; expected a value like {spec.default!r}") from error
        check(spec, values[spec.name])
    _name_unknown(node)
    return values


def _name_unknown(node: Node) -> None:
    """rclpy says nothing about a limit that is misspelt in a YAML file, and the node would go by the default."""
    unknown = sorted(name for name in node._parameter_overrides if not node.has_parameter(name))
    if unknown:
        node.get_logger().warning(
            f"{', '.join(unknown)}: given, but this node has no such parameter; check the spelling, unless "
            "another node is meant"
        )


def check(spec: ParameterSpec, value: Any) -> None:
    """A value of the parameter's type is one that it may have; NaN is in no range.

    Raises:
        ConfigurationError: it is not; the message says what may be.
    """
    if value is None:  # an empty list in a YAML file
        raise ConfigurationError(f"{spec.name} has no value; expected one like {spec.default!r}")
    if spec.choices and value not in spec.choices:
        raise ConfigurationError(f"parameter {spec.name} is {value!r}; expected one of {', '.join(spec.choices)}")
    if isinstance(spec.default, list) and len(value) != len(spec.default):
        raise ConfigurationError(f"{spec.name} has {len(value)} values; expected {len(spec.default)}")
    if spec.range:
        low, high = spec.range
        for number in value if isinstance(spec.default, list) else [value]:
            if not low <= number <= high:
                raise ConfigurationError(f"{spec.name} is {number}, out of range; expected {low:g} to {high:g}")
