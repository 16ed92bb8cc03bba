"""CUDA graphs: the launches of a pass recorded once, and replayed with other contents in the same memory."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

DeviceWork = Callable[..., tuple[Tensor, ...]]
"""Tensors in, tensors out. Everything else that it reads must be the same under the same key."""
Recorder = Callable[[Callable[[], tuple[Tensor, ...]]], tuple[tuple[Tensor, ...], Callable[[], None]]]
"""Takes work that always reads the same memory; gives its outputs, and what computes them anew in the same place."""
PROMPT_BUCKETS = (288, 320, 352)
"""Positions of image and prompt that prompts are padded to: 256 patches and 32, 64 or 96 of text. LIBERO's instructions
make 20 to 40."""
WARM_UPS = 2
"""Runs before a recording: libraries choose and load their kernels then."""

_one_at_a_time = threading.RLock()
"""Graphs of one process share cuBLAS' scratch memory: the warm-up of one would overwrite what another computes."""


class Runner(Protocol):
    """Runs the decoder's work on the device.

    Attributes:
        buckets: lengths that a prompt is padded to, ascending; a longer one is not padded.
        misses: pieces of work that had no recording and were started operation by operation.
    """

    buckets: tuple[int, ...]
    misses: int

    def run(self, key: Hashable, work: DeviceWork, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `work(*inputs)`; they hold until work with the same key runs again."""


class Eager:
    """Starts every operation by itself, in the shapes of the prompt as it is."""

    buckets: tuple[int, ...] = ()
    misses = 0

    def run(self, key: Hashable, work: DeviceWork, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Call it."""
        return work(*inputs)


class Graphs:
    """Replays what was recorded under a key; what was not is started operation by operation, and counted.

    Args:
        buckets: see `Runner`.
        record: makes a recording; a test of what surrounds the graphs needs no GPU.
    """

    def __init__(self, buckets: tuple[int, ...] = PROMPT_BUCKETS, record: Recorder | None = None) -> None:
        self.buckets = buckets
        self.misses = 0
        self._record = record or CudaRecorder()
        self._recordings: dict[Hashable, GraphRecording] = {}
        self._outputs: set[int] = set()
        self._is_recording = False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Work whose key is new is recorded meanwhile; other threads wait with theirs until it is over."""
        with _one_at_a_time, _nothing_is_collected():
            self._is_recording = True
            try:
                yield
            finally:
                self._is_recording = False

    def run(self, key: Hashable, work: DeviceWork, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See `Runner`."""
        with _one_at_a_time:
            return self._run(key, work, inputs)

    def _run(self, key: Hashable, work: DeviceWork, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        recording = self._recordings.get(key)
        if recording is None and not self._is_recording:
            self.misses += 1
            return work(*inputs)
        if recording is None:
            recording = self._recordings[key] = self._new_recording(work, inputs)
        return recording.replay(inputs)

    def _new_recording(self, work: DeviceWork, inputs: tuple[Tensor, ...]) -> GraphRecording:
        # What another recording left in its place is read there; everything else gets a place of its own.
        held = tuple(Held(given, stays=id(given) in self._outputs) for given in inputs)
        outputs, compute = self._record(lambda: work(*(one.place for one in held)))
        self._outputs.update(map(id, outputs))
        return GraphRecording(held, outputs, compute)


@contextmanager
def _nothing_is_collected() -> Iterator[None]:
    """Python's collector might free an old policy's GPU memory in the middle of a recording, which would spoil it."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class GraphRecording:
    """Work that can be done again with other contents in the same memory.

    Attributes:
        compute: from the inputs' places to the outputs.
    """

    inputs: tuple[Held, ...]
    outputs: tuple[Tensor, ...]
    compute: Callable[[], None]

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The outputs for other inputs."""
        for held, given in zip(self.inputs, inputs, strict=True):
            held.fill(given)
        self.compute()
        return self.outputs


class Held:
    """A recording's input: always in the same place; one from the host gets to a GPU through page-locked memory.

    Args:
        like: the first contents.
        stays: it lies in a place of its own already.
    """

    def __init__(self, like: Tensor, *, stays: bool) -> None:
        to_gpu = like.device.type == "cpu" and torch.cuda.is_available()
        self._pinned = torch.empty_like(like).pin_memory() if to_gpu else None
        self.place = like if stays else like.cuda() if to_gpu else like.clone()

    def fill(self, given: Tensor) -> None:
        """Put other contents there."""
        if given is self.place:
            return
        if self._pinned is not None:
            # The last upload is done: every action ends with a copy to the host.
            given = self._pinned.copy_(given)
        self.place.copy_(given, non_blocking=True)


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], tuple[Tensor, ...]]) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
        """See `Recorder`."""
        stream = _recording_stream(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may copy to and from the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            outputs = work()
        return outputs, graph.replay


@cache
def _recording_stream(device: int) -> torch.cuda.Stream:
    """One for each GPU: torch's own is of the one on which the process recorded first, and records no other's work.

    It is always the same, since recordings share memory only where they share a stream.
    """
    return torch.cuda.Stream(device)
