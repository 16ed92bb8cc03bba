"""What an action makes the machine do: bytes that must be moved, and arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from specvla_ros.bench.imposed import DeepDrafter
from specvla_ros.memory import module_bytes, weight_tensors
from specvla_ros.speculative.drafter import Drafter
from specvla_ros.speculative.eagle import EagleDrafter, EagleHead
from specvla_ros.speculative.merged import MergedDrafter
from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.config import ACTION_BINS, PATCHES
from specvla_ros.vla.graphs import Recorder
from specvla_ros.vla.model import OpenVLA


@dataclass(frozen=True, slots=True)
class Work:
    """Of some forward passes.

    Attributes:
        bytes: weights read once in each pass, keys and values read and written; activations stay near the processor.
        operations: multiplications and additions of the matrix products and of attention.
    """

    bytes: int = 0
    operations: int = 0

    def __sub__(self, other: Work) -> Work:
        return Work(self.bytes - other.bytes, self.operations - other.operations)


class WorkMeter:
    """Adds up the work of the modules that it was shown, pass by pass."""

    def __init__(self, target: OpenVLA) -> None:
        self.work = Work()
        config = target.config
        self._head_bytes = ACTION_BINS * config.llama.hidden_size * target.dtype.itemsize
        vision = [target.vision_backbone, target.projector]
        weights, size = sum(map(_weights, vision)), sum(map(module_bytes, vision))
        attention = 4 * PATCHES**2 * sum(tower.width * (tower.depth - 1) for tower in (config.dinov2, config.siglip))
        vision_work = Work(size, 2 * weights * PATCHES + attention)
        target.vision_backbone.register_forward_hook(lambda *_: self._add(vision_work))
        model = target.language_model.model
        self._watch(model, [*model.layers, model.norm], len(model.layers))

    def watch_drafts(self, drafter: Drafter) -> None:
        """Count the learned drafts inside, too."""
        for head in draft_heads(drafter):
            self._watch(head, [head], 1)

    def recorder(self, record: Recorder) -> Recorder:
        """A recorder of graphs whose replays count as the passes in them, which no module notices."""

        def recorded(
            work: Callable[[], tuple[Tensor, ...]],
        ) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
            once = Work()

            def watched() -> tuple[Tensor, ...]:
                nonlocal once
                before = self.work
                outputs = work()
                once = self.work - before
                return outputs

            outputs, compute = record(watched)

            def counted() -> None:
                self._add(once)
                compute()

            return outputs, counted

        return recorded

    def _watch(self, module: nn.Module, parts: list[nn.Module], layers: int) -> None:
        """A language model, or a draft's head: rows of embeddings first among its inputs, its cache behind them."""
        weights, size = sum(map(_weights, parts)), sum(map(module_bytes, parts))

        def count(_: nn.Module, inputs: tuple[Tensor | KeyValueCache | None, ...], __: Tensor) -> None:
            embeddings = inputs[0]
            cache = next(one for one in inputs if isinstance(one, KeyValueCache))
            assert isinstance(embeddings, Tensor)
            new, width = embeddings.shape
            attended = cache.length + new
            rows = 2 * layers * width * (attended + new)
            arithmetic = 2 * weights * new + 4 * new * attended * width * layers
            self._add(Work(size + self._head_bytes + rows * embeddings.element_size(), arithmetic))

        module.register_forward_hook(count)

    def _add(self, work: Work) -> None:
        self.work = Work(self.work.bytes + work.bytes, self.work.operations + work.operations)


def draft_heads(drafter: Drafter) -> Iterator[EagleHead]:
    """The learned drafts inside."""
    if isinstance(drafter, EagleDrafter):
        yield drafter.head
    elif isinstance(drafter, DeepDrafter):
        yield from draft_heads(drafter.drafter)
    elif isinstance(drafter, MergedDrafter):
        for one in drafter.drafters:
            yield from draft_heads(one)


def _weights(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in weight_tensors(module))
