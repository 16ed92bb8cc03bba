"""Parameters written down once: name, default, meaning, range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One parameter of a node; those without `live` are read once, at the start.

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


def declare(node: Node, specs: Iterable[ParameterSpec]) -> dict[str, Any]:
    """Declare the parameters with descriptors and return the values in force.

    Raises:
        rclpy.exceptions.InvalidParameterValueException: a value from YAML or the command line is out of range.
        ValueError: a string is none of its choices; the message names them.
    """
    values = {}
    for spec in specs:
        descriptor = ParameterDescriptor(description=spec.description, read_only=not spec.live)
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
        value = node.declare_parameter(spec.name, spec.default, descriptor).value
        if spec.choices and value not in spec.choices:
            raise ValueError(f"parameter {spec.name} is {value!r}; expected one of {', '.join(spec.choices)}")
        values[spec.name] = value
    return values
