"""One action under torch's profiler: which pass runs when, and how much of it is arithmetic."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from specvla_ros.report.palette import BLUE, INK, MUTED, ORANGE, TEAL, VIOLET
from specvla_ros.report.plots import WIDTH
from specvla_ros.report.svg import inline_svg, standalone_svg, style
from specvla_ros.runtime import OpenVLAPolicy
from specvla_ros.sim.libero import RGB
from specvla_ros.vla.graphs import DeviceWork

VISION, PREFILL, DRAFT, VERIFY = "vision", "prefill", "draft", "verify"
PASSES = {VISION: TEAL, PREFILL: BLUE, DRAFT: ORANGE, VERIFY: VIOLET}
PRODUCTS, REST = "matrix products and attention", "everything else"
OPERATIONS = {PRODUCTS: INK, REST: MUTED}
PRODUCT_NAMES = (
    "mm",
    "conv",
    "gemm",
    "dot_product",
    "attention",
    "cutlass",
    "xmma",
    "flash",
    "nvjet",
    "splitk",
    "sdpa",
    "product_of",
    "attend",
)
MARK = "specvla: "
JOINED = {"cpu": 0.02, "cuda": 0.004}
"""Milliseconds between two operations of a kind up to which they are drawn as one."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to `end`, in milliseconds since the action began."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """Of one action.

    Attributes:
        passes: of vision, the language model and a learned draft, by `PASSES`.
        operations: by `OPERATIONS`, where the arithmetic is done: on the GPU, if there is one.
    """

    row: str
    passes: tuple[Span, ...]
    operations: tuple[Span, ...]


def record_timeline(row: str, policy: OpenVLAPolicy, images: Sequence[RGB], instruction: str) -> Timeline:
    """Profile the action for the last of the images; the others come before it, as in an episode."""
    # The profiler tells standard error about its own start and stop.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    policy.reset()
    for image in images[:-1]:
        policy.act(image, instruction)
    on_gpu = policy.decoder.target.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with _marked(policy), profile(activities=activities) as profiler, record_function(MARK + "action"):
        policy.act(images[-1], instruction)
    events: list[Any] = list(profiler.events())
    begun = next(event.time_range.start for event in events if event.name == MARK + "action")
    marks = [event for event in events if event.name.startswith(MARK) and event.device_type == DeviceType.CPU]
    passes = [_span(event, begun, event.name.removeprefix(MARK)) for event in marks]
    device = DeviceType.CUDA if on_gpu else DeviceType.CPU
    done = [event for event in events if event.device_type == device and not event.name.startswith(MARK)]
    operations = [_span(event, begun, kind) for event in done if (kind := _kind(event))]
    joined = _join(operations, JOINED["cuda" if on_gpu else "cpu"])
    return Timeline(row, tuple(span for span in passes if span.name in PASSES), tuple(joined))


def timelines_svg(timelines: Sequence[Timeline]) -> str:
    """Two lanes a row: passes above, operations below.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    with style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, 1.1 + 0.7 * len(timelines)), layout="constrained")
        axes = figure.subplots()
        for number, timeline in enumerate(timelines):
            for spans, colours, height in ((timeline.passes, PASSES, 0.0), (timeline.operations, OPERATIONS, 0.35)):
                for name, colour in colours.items():
                    bars = [(span.start, span.end - span.start) for span in spans if span.name == name]
                    axes.broken_barh(bars, (number + height - 0.35, 0.3), color=colour, linewidth=0)
        axes.set_yticks(range(len(timelines)), [timeline.row for timeline in timelines])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="milliseconds, slowed by the profiler", title="One action")
        for name, colour in (PASSES | OPERATIONS).items():
            axes.bar(0.0, 0.0, color=colour, label=name)
        figure.legend(loc="outside lower left", ncols=len(PASSES) + len(OPERATIONS))
        return standalone_svg(inline_svg(figure, "timeline of an action"))


@contextmanager
def _marked(policy: OpenVLAPolicy) -> Iterator[None]:
    """Passes leave their names in the profile meanwhile; on a GPU each is waited for, so that its mark spans it."""
    runner, device = policy.decoder.runner, policy.decoder.target.device
    run = runner.run

    def marked(key: Hashable, work: DeviceWork, *inputs: Tensor) -> tuple[Tensor, ...]:
        name = key[0] if isinstance(key, tuple) else key
        with record_function(f"{MARK}{name}"):
            outputs = run(key, work, *inputs)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return outputs

    runner.run = marked  # type: ignore[method-assign]
    try:
        yield
    finally:
        runner.run = run  # type: ignore[method-assign]


def _span(event: Any, begun: float, name: str) -> Span:
    """Profiler times are microseconds."""
    return Span(name, (event.time_range.start - begun) / 1e3, (event.time_range.end - begun) / 1e3)


def _kind(event: Any) -> str | None:
    """None for an operation that others are part of, and for one that is part of a product."""
    if _is_product(event):
        return None if _is_inside_product(event) else PRODUCTS
    return None if event.cpu_children or _is_inside_product(event) else REST


def _is_product(event: Any) -> bool:
    return any(part in event.name.lower() for part in PRODUCT_NAMES)


def _is_inside_product(event: Any) -> bool:
    parent = event.cpu_parent
    return parent is not None and (_is_product(parent) or _is_inside_product(parent))


def _join(spans: Sequence[Span], gap: float) -> Iterator[Span]:
    """Neighbours of a kind as one, where no more than `gap` milliseconds lie between them."""
    for name in OPERATIONS:
        current: Span | None = None
        for span in sorted((span for span in spans if span.name == name), key=lambda span: span.start):
            if current is not None and span.start - current.end < gap:
                current = Span(name, current.start, max(current.end, span.end))
                continue
            if current is not None:
                yield current
            current = span
        if current is not None:
            yield current
