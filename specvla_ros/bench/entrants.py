"""Who takes part: one policy for each row, all on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from specvla_ros.bench.distribution import Distribution, geometric, measured, spread
from specvla_ros.bench.imposed import ImposedDecoder
from specvla_ros.bench.options import PAPER, THRESHOLDS, BenchOptions
from specvla_ros.bench.sizes import SIZES, random_drafter, random_target
from specvla_ros.bench.transformers_policy import TransformersPolicy
from specvla_ros.bench.work import Work, WorkMeter
from specvla_ros.errors import ConfigurationError
from specvla_ros.policy import Action, Policy, expand_thresholds
from specvla_ros.report.published import PAPER as PUBLISHED_BY_ITS_AUTHORS
from specvla_ros.report.published import PUBLISHED
from specvla_ros.runtime import CAPACITY, OpenVLAPolicy, load_policy, select_device, select_dtype
from specvla_ros.shipped import checkpoint_directory, shipped_checkpoint
from specvla_ros.speculative.build import TreeConfig, build_drafter
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import Drafter
from specvla_ros.speculative.plain import NoDrafter
from specvla_ros.vla.actions import select_norm_stats
from specvla_ros.vla.checkpoint import read_norm_stats
from specvla_ros.vla.prompt import PromptTokenizer

MEASURED, IMPOSED, ABSENT = "measured", "imposed", "absent"
GREEDY, TRANSFORMERS = "greedy", "transformers, greedy"
NO_DRAFT = "none"


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
    """

    name: str
    kind: str
    draft: str = NO_DRAFT
    threshold: int | None = 0
    policy: Policy | None = field(default=None, repr=False)
    note: str = ""


def load_plain(options: BenchOptions) -> OpenVLAPolicy:
    """Plain greedy decoding with the checkpoint's weights, or with random ones of a size."""
    if not options.size:
        return load_policy(
            options.checkpoint or None,
            device=options.device,
            dtype=options.dtype,
            unnorm_key=options.unnorm_key or None,
        )
    device = select_device(options.device)
    target = random_target(SIZES[options.size], select_dtype(options.dtype, device), device)
    decoder = SpeculativeDecoder(target, NoDrafter(), capacity=CAPACITY)
    # Prompts as long as the package's own model reads, and its statistics: a size has neither.
    own = shipped_checkpoint()
    _, norm_stats = select_norm_stats(read_norm_stats(own), None, own)
    return OpenVLAPolicy(own, decoder, PromptTokenizer(own), norm_stats, "libero", expand_thresholds(0))


def entrants(options: BenchOptions, plain: OpenVLAPolicy, meter: WorkMeter, count: int) -> list[Entrant]:
    """Every row: plain greedy decoding first, then those that are compared with it.

    Args:
        count: images that will be decoded, which imposed lengths are spread over.

    Raises:
        SpecVLAError: a draft or a file of lengths cannot be used.
    """
    rows = [Entrant(GREEDY, MEASURED, policy=Observed(plain, meter)), _transformers(plain, meter)]
    if not options.size:
        for draft in options.draft_names:
            for threshold in THRESHOLDS:
                policy = plain.with_drafter(_drafter(draft, plain, options, meter), expand_thresholds(threshold))
                name = f"{draft}, r = {threshold}" if threshold else f"{draft}, strict"
                rows.append(Entrant(name, MEASURED, draft, threshold, Observed(policy, meter)))
    distributions = [named for source in options.distributions for named in _distributions(source)]
    for draft in options.draft_names:
        for name, distribution in distributions:
            drafter = _drafter(draft, plain, options, meter)
            actions = spread(distribution, count)
            decoder = ImposedDecoder(plain.decoder.target, drafter, actions, capacity=CAPACITY)
            policy = plain.with_decoder(decoder, plain.thresholds)
            rows.append(Entrant(f"{draft}, imposed {name}", IMPOSED, draft, None, Observed(policy, meter)))
    return rows + ([] if options.size else [_large(options)])


def _transformers(plain: OpenVLAPolicy, meter: WorkMeter) -> Entrant:
    try:
        return Entrant(TRANSFORMERS, MEASURED, policy=Observed(TransformersPolicy(plain), meter))
    except ConfigurationError as error:
        return Entrant(TRANSFORMERS, ABSENT, note=str(error))


def _large(options: BenchOptions) -> Entrant:
    """What needs a GPU, and the command for it."""
    wanted = BenchOptions(size="7b", device="cuda", count=options.count, output=Path("runs/bench_7b"))
    return Entrant("7B, random weights, on a GPU", ABSENT, note=wanted.command())


def _distributions(source: str) -> Iterator[tuple[str, Distribution]]:
    if source != PAPER:
        for name, distribution in measured(Path(source)).items():
            yield f"as {name} in {source}", distribution
        return
    for row in PUBLISHED:
        if row.origin == PUBLISHED_BY_ITS_AUTHORS and row.accept_length:
            how = f"r = {row.threshold}" if row.threshold else "strict"
            yield f"{row.accept_length:.2f} ({row.suite} {how})", geometric(row.accept_length)


def _drafter(name: str, plain: OpenVLAPolicy, options: BenchOptions, meter: WorkMeter) -> Drafter:
    target = plain.decoder.target
    if options.size:
        drafter = random_drafter(name, target)
    else:
        directory = checkpoint_directory(options.checkpoint)
        drafter = build_drafter(name, target, CAPACITY, TreeConfig(), directory)
    meter.watch_drafts(drafter)
    return drafter


def facts(plain: OpenVLAPolicy) -> dict[str, Any]:
    """What all rows have in common."""
    target = plain.decoder.target
    return {
        "parameters": sum(parameter.numel() for parameter in target.parameters()),
        "dtype": str(target.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(target.device) if target.device.type == "cuda" else "cpu",
    }
