"""Several evaluations in one go: on every suite, with every seed, every draft at every threshold and every latency."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from specvla_ros.errors import ConfigurationError
from specvla_ros.evaluation.episode_file import EPISODES, OPTIONS, read_results
from specvla_ros.evaluation.evaluate import chosen_tasks, evaluate
from specvla_ros.evaluation.latency import LOCKSTEP
from specvla_ros.evaluation.options import EvaluationOptions
from specvla_ros.evaluation.rig import Rig
from specvla_ros.evaluation.tables import Summary, summarise, write_summary
from specvla_ros.evaluation.threshold import require_draft, threshold_text
from specvla_ros.policy import PLAIN
from specvla_ros.sim.holding import HOLD_TIME
from specvla_ros.speculative.build import locate_drafts


def combinations(
    options: EvaluationOptions,
    drafts: Sequence[str],
    thresholds: Sequence[int | tuple[int, ...]],
    latencies: Sequence[str],
    suites: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[EvaluationOptions]:
    """The options of each evaluation, in folders of their own below the output; a single one keeps the folder itself,
    if there are no others below it. The folders are named by suite too where there are several, or were before.

    Args:
        suites, seeds: instead of the options' own.

    Raises:
        ConfigurationError: see `require_draft`; two drafts would share a folder.
    """
    require_draft(drafts, thresholds)
    every = itertools.product(suites or (options.suite,), seeds or (options.seed,), drafts, thresholds, latencies)
    chosen = dict.fromkeys(
        (suite, seed, draft, 0 if draft == PLAIN else threshold, latency)
        for suite, seed, draft, threshold, latency in every
    )
    sweep = [
        replace(options, suite=suite, seed=seed, draft=draft, threshold=threshold, latency=latency)
        for suite, seed, draft, threshold, latency in chosen
    ]
    if len(sweep) == 1 and not any(options.output.glob(f"*/{OPTIONS}")):
        return sweep
    several = len(set(suites)) > 1 or any(any(options.output.glob(f"{one.suite}_*/{OPTIONS}")) for one in sweep)
    names = [f"{one.suite}_{folder_name(one)}" if several else folder_name(one) for one in sweep]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"drafts {', '.join(drafts)} differ in punctuation only; rename a folder")
    return [replace(one, output=options.output / name) for one, name in zip(sweep, names, strict=True)]


def run_sweep(
    sweep: Sequence[EvaluationOptions], console: Console, rig: Rig | None = None
) -> Iterator[tuple[EvaluationOptions, list[Summary]]]:
    """Evaluate one after the other; each one's tables by task as soon as it is finished.

    That all suites have the tasks, that all drafts exist and that films can be made is looked at first: the second
    evaluation may come hours after the first.

    What is written beside the episodes is of all that lie there, also those that were not asked for this time.

    Raises:
        SpecVLAError: see `evaluate`.
    """
    rig = rig or Rig()
    # Once each: tasks and drafts recur with every threshold, and a hub name is asked for over the network.
    for options in {one.suite: one for one in sweep}.values():
        chosen_tasks(rig.tasks(options), options)
    for options in {one.draft: one for one in sweep}.values():
        locate_drafts(options.draft, options.checkpoint_directory)
    if any(one.videos for one in sweep):
        from specvla_ros.sim.video import require_imageio

        require_imageio()
    for number, options in enumerate(sweep, start=1):
        if len(sweep) > 1:
            console.print(f"{number} of {len(sweep)}: {options.output.name}", highlight=False, soft_wrap=True)
        summaries = summarise(evaluate(options, console, rig))
        everything = sorted(read_results(options.output / EPISODES), key=lambda one: (one.task, one.episode))
        write_summary(summarise(everything), options.output)
        yield options, summaries


def folder_name(options: EvaluationOptions) -> str:
    """Draft, threshold, latency, another hold time, another seed: `hold_r3`, `hold_r9_model-60+25_hold-0.5_seed-1`."""
    parts = [plain_name(options.draft), f"r{plain_name(threshold_text(options.threshold))}"]
    if options.latency != LOCKSTEP:
        parts.append(plain_name(options.latency))
        if options.hold_time != HOLD_TIME:
            parts.append(f"hold-{options.hold_time:g}")
    if options.seed:
        parts.append(f"seed-{options.seed}")
    return "_".join(parts)


def plain_name(text: str) -> str:
    """Without what the name of a folder or a file should not hold."""
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-")
