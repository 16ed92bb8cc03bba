"""CUDA graphs: the launches of a pass recorded once, and replayed with other contents in the same memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

Work = Callable[..., tuple[Tensor, ...]]
"""Tensors in, tensors out. Everything else that it reads must be the same under the same key."""
Recorder = Callable[[Work, tuple[Tensor, ...]], Work]
"""Work and its first inputs in, and what replays it out."""
PROMPT_BUCKETS = (288, 320, 352)
"""Positions of image and prompt that prompts are padded to: 256 patches and 32, 64 or 96 of text. LIBERO's instructions
make 20 to 40."""
WARM_UPS = 2
"""Runs before a recording: libraries choose and load their kernels then."""


class Runner(Protocol):
    """Runs the decoder's work on the device.

    Attributes:
        buckets: lengths that a prompt is padded to, ascending; a longer one is not padded.
        misses: pieces of work that had no recording and were started operation by operation.
    """

    buckets: tuple[int, ...]
    misses: int

    def run(self, key: Hashable, work: Work, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of `work(*inputs)`; they hold until work with the same key runs again."""


class Eager:
    """Starts every operation by itself, in the shapes of the prompt as it is."""

    buckets: tuple[int, ...] = ()
    misses = 0

    def run(self, key: Hashable, work: Work, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Call it."""
        return work(*inputs)


class Graphs:
    """Replays what was recorded under a key; what was not is started operation by operation, and counted.

    Args:
        record: makes a recording of a piece of work; a test of what surrounds the graphs needs no GPU.
    """

    def __init__(self, buckets: tuple[int, ...] = PROMPT_BUCKETS, record: Recorder | None = None) -> None:
        self.buckets = buckets
        self.misses = 0
        self._record = record or CudaRecorder()
        self._recorded: dict[Hashable, Work] = {}
        self._recording = False

    @property
    def count(self) -> int:
        """Recordings there are."""
        return len(self._recorded)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Work whose key is new is recorded meanwhile."""
        self._recording = True
        try:
            yield
        finally:
            self._recording = False

    def run(self, key: Hashable, work: Work, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See `Runner`."""
        replay = self._recorded.get(key)
        if replay is None and self._recording:
            replay = self._recorded[key] = self._record(work, inputs)
        if replay is None:
            self.misses += 1
            return work(*inputs)
        return replay(*inputs)


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Work, inputs: tuple[Tensor, ...]) -> Work:
        """Warm up, record, and return what replays the recording."""
        held = tuple(Held(given) for given in inputs)
        places = tuple(one.place for one in held)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                work(*places)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: a policy goes on deciding while another draft's graphs are recorded.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = work(*places)

        def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
            for one, given in zip(held, inputs, strict=True):
                one.fill(given)
            graph.replay()
            return outputs

        return replay


class Held:
    """A graph's input: always in the same place on the GPU, filled through page-locked memory from the host."""

    def __init__(self, like: Tensor) -> None:
        self._pinned = torch.empty_like(like).pin_memory() if like.device.type == "cpu" else None
        self.place = like.cuda() if self._pinned is not None else like.clone()

    def fill(self, given: Tensor) -> None:
        """Put other contents there."""
        if self._pinned is not None:
            # The last upload is done: every action ends with a copy to the host.
            given = self._pinned.copy_(given)
        self.place.copy_(given, non_blocking=True)
