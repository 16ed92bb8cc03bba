"""A stand-in for CUDA's recorder: it does the work again, from and to the same memory as a graph would."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def record(work: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
    """See `specvla_ros.vla.graphs.Recorder`."""
    outputs = tuple(one.clone() for one in work())

    def compute() -> None:
        for place, one in zip(outputs, work(), strict=True):
            place.copy_(one)

    return outputs, compute
