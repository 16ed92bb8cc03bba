"""What the device can do at best, measured beside what it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

REPEATS = 7
"""The best of them counts: whatever else the machine does can only slow one down."""
COPY_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}
"""Far more than any cache holds."""
MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True, slots=True)
class Rates:
    """Of the device in the weights' type, with the threads that the decoder has.

    Attributes:
        bandwidth: bytes a second, read and written, of a large copy.
        arithmetic: multiplications and additions a second of a large matrix product.
    """

    bandwidth: float
    arithmetic: float


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Takes a second or so, and twice COPY_BYTES of memory."""
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    size = MATRIX_SIZE[device.type]
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    product = torch.empty_like(matrix)
    return Rates(
        bandwidth=2 * source.numel() / _best_seconds(lambda: target.copy_(source), device),
        arithmetic=2 * size**3 / _best_seconds(lambda: torch.mm(matrix, matrix, out=product), device),
    )


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
