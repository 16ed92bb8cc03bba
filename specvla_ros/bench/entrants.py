"""Who takes part: one policy for each row, all on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from specvla_ros.bench.distribution import Distribution, Rounds, geometric, measured, spread
from specvla_ros.bench.frames import Frames
from specvla_ros.bench.imposed import ImposedDecoder
from specvla_ros.bench.options import PAPER, THRESHOLDS, BenchOptions
from specvla_ros.bench.sizes import SIZES, random_drafter, random_target
from specvla_ros.bench.transformers_policy import TransformersPolicy
from specvla_ros.bench.work import Work, WorkMeter
from specvla_ros.errors import ConfigurationError
from specvla_ros.gpu_memory import release_unused
from specvla_ros.policy import PLAIN, Action, LooksAhead, Policy, expand_thresholds
from specvla_ros.report.published import PAPER as PUBLISHED_BY_ITS_AUTHORS
from specvla_ros.report.published import PUBLISHED
from specvla_ros.runtime import (
    CAPACITY,
    OpenVLAPolicy,
    load_policy,
    load_target,
    recorded,
    select_device,
    select_dtype,
)
from specvla_ros.shipped import checkpoint_directory, shipped_checkpoint
from specvla_ros.speculative.build import build_drafter
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import Drafter
from specvla_ros.speculative.eagle import TreeConfig
from specvla_ros.speculative.plain import NoDrafter
from specvla_ros.vla.actions import select_norm_stats
from specvla_ros.vla.checkpoint import read_norm_stats
from specvla_ros.vla.config import PATCHES
from specvla_ros.vla.graphs import PROMPT_BUCKETS, CudaRecorder, Eager, Graphs, Runner
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import PromptTokenizer

MEASURED, IMPOSED, ABSENT = "measured", "imposed", "absent"
GREEDY, TRANSFORMERS = "greedy", "transformers, greedy"


class Observed:
    """A policy that keeps what its actions were and what each made the machine do; forgets both when reset."""

    def __init__(self, policy: Policy, meter: WorkMeter) -> None:
        self.thresholds = policy.thresholds
        self.actions: list[Action] = []
        self.work: list[Work] = []
        self.policy = policy
        self._meter = meter

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        """As the policy."""
        before = self._meter.work
        action = self.policy.act(image, instruction)
        self.actions.append(action)
        self.work.append(self._meter.work - before)
        return action

    @property
    def looks_ahead(self) -> bool:
        """As the policy."""
        return isinstance(self.policy, LooksAhead) and self.policy.looks_ahead

    def look(self, image: NDArray[np.uint8]) -> None:
        """As the policy, if it can."""
        if isinstance(self.policy, LooksAhead):
            self.policy.look(image)

    def reset(self) -> None:
        """As the policy."""
        self.policy.reset()
        self.actions, self.work = [], []


@dataclass(slots=True)
class Entrant:
    """One row of the table.

    Attributes:
        kind: MEASURED, IMPOSED, or ABSENT where there is no policy.
        threshold: bins, for the six motion dimensions; None where lengths are imposed.
        note: why a row is absent, or what fills it.
        memory: bytes on the GPU of its draft, cache and graphs, and of its weights where these are its own.
        weights: see `load_policy`.
    """

    name: str
    kind: str
    draft: str = PLAIN
    threshold: int | None = 0
    policy: Policy | None = field(default=None, repr=False)
    note: str = ""
    memory: int = 0
    weights: str = "full"


def load_plain(options: BenchOptions) -> OpenVLAPolicy:
    """Plain greedy decoding without graphs, with the checkpoint's weights, or with random ones of a size."""
    if not options.size:
        return load_policy(
            options.checkpoint or None,
            device=options.device,
            dtype=options.dtype,
            unnorm_key=options.unnorm_key or None,
            graphs=False,
        )
    target = load_bench_target(options, select_device(options.device), "full")
    decoder = SpeculativeDecoder(target, NoDrafter(), capacity=CAPACITY)
    # Prompts as long as the package's own model reads, and its statistics: a size has neither.
    own = shipped_checkpoint()
    _, norm_stats = select_norm_stats(read_norm_stats(own), None, own)
    return OpenVLAPolicy(own, decoder, PromptTokenizer(own), norm_stats, "libero", expand_thresholds(0))


def load_bench_target(options: BenchOptions, device: torch.device, weights: str) -> OpenVLA:
    """The checkpoint's network, or one with random weights of a size."""
    dtype = select_dtype(options.dtype, device)
    if not options.size:
        return load_target(checkpoint_directory(options.checkpoint), dtype, device, weights)
    return random_target(SIZES[options.size], dtype, device, weights)


def entrants(options: BenchOptions, plain: OpenVLAPolicy, meter: WorkMeter, frames: Frames) -> list[Entrant]:
    """Every row: plain greedy decoding first, then those that are compared with it.

    Args:
        frames: what will be decoded; imposed lengths are spread over the images, graphs recorded for the prompt.

    Raises:
        SpecVLAError: a draft or a file of lengths cannot be used.
    """
    field = _Field(options, plain, meter, frames)
    rows = [field.greedy(), *field.without_graphs(), field.transformers(), *field.other_weights()]
    for draft in options.draft_names:
        rows += field.measured(draft) if not options.size else []
    for draft in options.draft_names:
        rows += field.imposed(draft)
    return rows + ([] if options.size else [_large(options)])


class _Field:
    """What the rows have in common."""

    def __init__(self, options: BenchOptions, plain: OpenVLAPolicy, meter: WorkMeter, frames: Frames) -> None:
        self._options, self._plain, self._meter = options, plain, meter
        self._count = len(frames.images)
        self._drafters: dict[str, Drafter] = {}
        self._target = plain.decoder.target
        self._on_gpu = self._target.device.type == "cuda"
        length = PATCHES + len(plain.prepare(frames.images[0], frames.instruction)[0])
        self._buckets = tuple(bucket for bucket in PROMPT_BUCKETS if bucket >= length)[:1]

    def greedy(self) -> Entrant:
        """The row that all others are compared with."""
        return self._entrant(GREEDY, MEASURED, lambda: self._decoder(NoDrafter()))

    def without_graphs(self) -> Iterator[Entrant]:
        """Where the others replay graphs, the same operation by operation."""
        if self._on_gpu:
            # A policy of its own: what it prepares ahead is not the transformers row's to take.
            policy = self._plain.with_decoder(self._plain.decoder, self._plain.thresholds)
            yield Entrant(f"{GREEDY}, without graphs", MEASURED, policy=Observed(policy, self._meter))

    def transformers(self) -> Entrant:
        """What a user would have without this package."""
        try:
            return Entrant(TRANSFORMERS, MEASURED, policy=Observed(TransformersPolicy(self._plain), self._meter))
        except ConfigurationError as error:
            return Entrant(TRANSFORMERS, ABSENT, note=str(error))

    def other_weights(self) -> Iterator[Entrant]:
        """Plain greedy decoding, as far as possible the same, with weights of other kinds."""
        for kind in self._options.weights:
            before = self._memory()
            target = load_bench_target(self._options, self._target.device, kind)
            meter = WorkMeter(target)
            decoder = SpeculativeDecoder(target, NoDrafter(), capacity=CAPACITY, runner=self._runner(meter))
            policy = Observed(self._plain.with_decoder(recorded(decoder), self._plain.thresholds), meter)
            name = f"{GREEDY}, {kind} weights"
            yield Entrant(name, MEASURED, policy=policy, memory=self._memory() - before, weights=kind)

    def measured(self, draft: str) -> Iterator[Entrant]:
        """A draft at each threshold, by one decoder."""
        before = self._memory()
        decoder = recorded(self._decoder(self._drafter(draft)))
        memory = self._memory() - before
        for threshold in THRESHOLDS:
            name = f"{draft}, r = {threshold}" if threshold else f"{draft}, strict"
            policy = self._plain.with_decoder(decoder, expand_thresholds(threshold))
            yield Entrant(name, MEASURED, draft, threshold, Observed(policy, self._meter), memory=memory)

    def imposed(self, draft: str) -> Iterator[Entrant]:
        """A draft whose accepted lengths are decided."""
        for source in self._options.distributions:
            for name, distribution in _distributions(source, draft):
                actions = spread(distribution, self._count)
                decoder = partial(self._imposed_decoder, draft, actions)
                yield self._entrant(f"{draft}, imposed {name}", IMPOSED, decoder, draft, None)

    def _entrant(
        self,
        name: str,
        kind: str,
        decoder: Callable[[], SpeculativeDecoder],
        draft: str = PLAIN,
        threshold: int | None = 0,
    ) -> Entrant:
        """A row on the common weights, and what it adds to the GPU's memory."""
        before = self._memory()
        policy = self._plain.with_decoder(recorded(decoder()), expand_thresholds(threshold or 0))
        return Entrant(name, kind, draft, threshold, Observed(policy, self._meter), memory=self._memory() - before)

    def _decoder(self, drafter: Drafter) -> SpeculativeDecoder:
        return SpeculativeDecoder(self._target, drafter, capacity=CAPACITY, runner=self._runner(self._meter))

    def _imposed_decoder(self, draft: str, actions: Sequence[Rounds]) -> SpeculativeDecoder:
        runner = self._runner(self._meter)
        return ImposedDecoder(self._target, self._drafter(draft), actions, capacity=CAPACITY, runner=runner)

    def _runner(self, meter: WorkMeter) -> Runner:
        return Graphs(self._buckets, meter.recorder(CudaRecorder())) if self._on_gpu else Eager()

    def _memory(self) -> int:
        """Bytes that are in use on the GPU, graphs' memory included."""
        if not self._on_gpu:
            return 0
        release_unused()
        return torch.cuda.memory_reserved(self._target.device)

    def _drafter(self, name: str) -> Drafter:
        """The same for all rows that have it: it keeps nothing between actions."""
        if name not in self._drafters:
            self._drafters[name] = drafter = self._new_drafter(name)
            self._meter.watch_drafts(drafter)
        return self._drafters[name]

    def _new_drafter(self, name: str) -> Drafter:
        if self._options.size:
            return random_drafter(name, self._target)
        return build_drafter(name, self._target, CAPACITY, TreeConfig(), checkpoint_directory(self._options.checkpoint))


def _large(options: BenchOptions) -> Entrant:
    """What needs a GPU, and the command for it."""
    wanted = BenchOptions(size="7b", device="cuda", count=options.count, output=Path("runs/bench_7b"))
    return Entrant("7B, random weights, on a GPU", ABSENT, note=wanted.command())


def _distributions(source: str, draft: str) -> Iterator[tuple[str, Distribution]]:
    """Of the paper; or of a file, what it holds of this draft, and everything if it holds nothing of it."""
    if source != PAPER:
        found = measured(Path(source))
        own = {name: lengths for name, lengths in found.items() if name.startswith(f"{draft},")}
        for name, distribution in (own or found).items():
            yield f"as {name} in {Path(source).parent.name}", distribution
        return
    for row in PUBLISHED:
        if row.origin == PUBLISHED_BY_ITS_AUTHORS and row.accept_length:
            how = f"r = {row.threshold}" if row.threshold else "strict"
            yield f"{row.accept_length:.2f} ({row.suite} {how})", geometric(row.accept_length)


def facts(plain: OpenVLAPolicy) -> dict[str, Any]:
    """What all rows have in common."""
    target = plain.decoder.target
    return {
        "parameters": sum(parameter.numel() for parameter in target.parameters()),
        "dtype": str(target.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(target.device) if target.device.type == "cuda" else "cpu",
    }
