"""The target acts on the demonstrations' images, and what it saw and answered is kept for its draft."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor

from specvla_ros.errors import DataError, DecodeError
from specvla_ros.progress import pieces_bar
from specvla_ros.runtime import OpenVLAPolicy, load_policy, pixels
from specvla_ros.training.demonstrations import (
    Demonstration,
    demonstration_files,
    instruction_of,
    read_demonstrations,
)
from specvla_ros.training.disk import require_disk
from specvla_ros.training.greedy import act_greedily
from specvla_ros.training.regenerated import (
    DTYPE,
    PLAN_FILE,
    EpisodePlan,
    RegenerationPlan,
    fingerprint,
    frame_bytes,
)
from specvla_ros.vla.checkpoint import resolve_checkpoint
from specvla_ros.vla.prompt import PromptTokenizer


@dataclass(frozen=True, slots=True)
class RegenerateOptions:
    """What to regenerate and where to.

    Attributes:
        checkpoint: the target: directory or hub name.
        demonstrations: folders of LIBERO demonstration files.
        output: folder of the regenerated data; one that is there already is completed.
        max_frames: steps at most, chosen evenly among all; 0 takes every one.
        batch_size: images that the target reads at once.
        unnorm_key, preparation, device: as for `load_policy`.
    """

    checkpoint: str
    demonstrations: tuple[Path, ...]
    output: Path
    max_frames: int = 20_000
    batch_size: int = 16
    unnorm_key: str = ""
    preparation: str = "auto"
    device: str = "auto"


def regenerate(options: RegenerateOptions) -> Path:
    """Act greedily on the image and instruction of every chosen step, never shown the recorded action.

    Returns:
        The folder; see `specvla_ros.training.regenerated`.

    Raises:
        ConfigurationError: the disk is too small.
        DataError: no demonstrations, or the folder was made of another target or other steps.
    """
    console = Console(stderr=True)
    policy = load_policy(
        options.checkpoint,
        device=options.device,
        unnorm_key=options.unnorm_key or None,
        preparation=options.preparation,
        graphs=False,
    )
    target = policy.decoder.target
    tokenizer = PromptTokenizer(resolve_checkpoint(options.checkpoint))
    options.output.mkdir(parents=True, exist_ok=True)
    plan = _plan(options, fingerprint(target), policy.preparation)
    todo = [episode for episode in plan.episodes if not episode.shard(options.output).is_file()]
    longest = max(len(tokenizer.encode(instruction_of(Path(file)))) for file in {e.file for e in plan.episodes})
    each = frame_bytes(target.config.llama.hidden_size, longest)
    left = sum(len(episode.steps) for episode in todo)
    console.print(
        f"{plan.frames} steps of {len(plan.episodes)} episodes, {left} to do: {each / 1e6:.2f} MB a step, "
        f"{each * left / 1e9:.2f} GB of disk; {2 * each * options.batch_size / 1e6:.0f} MB of memory for a batch",
        highlight=False,
    )
    require_disk(options.output, each * left, "use a smaller max_frames")
    with pieces_bar(console) as progress:
        bar = progress.add_task("regenerate", total=plan.frames, completed=plan.frames - left)
        for episode, demonstration in _read(todo):
            input_ids = torch.tensor(tokenizer.encode(demonstration.language))
            tensors = _act(policy, input_ids, demonstration, episode.steps, options.batch_size)
            shard = episode.shard(options.output)
            unfinished = shard.with_suffix(".unfinished")
            save_file(tensors, unfinished)
            unfinished.rename(shard)
            progress.advance(bar, len(episode.steps))
    return options.output


def _plan(options: RegenerateOptions, target: str, preparation: str) -> RegenerationPlan:
    """The folder's own plan, or a new one written there."""
    episodes = [
        EpisodePlan(str(path), index, demonstration.moving_steps().tolist())
        for path in (path.resolve() for path in demonstration_files(options.demonstrations))
        for index, demonstration in enumerate(read_demonstrations(path))
    ]
    plan = RegenerationPlan(options.checkpoint, target, preparation, thin_out(episodes, options.max_frames))
    if (options.output / PLAN_FILE).is_file():
        made = RegenerationPlan.read(options.output)
        if replace(made, checkpoint=plan.checkpoint) != plan:
            raise DataError(
                f"{options.output} holds what {made.checkpoint} did, and its weights, the demonstrations, max_frames "
                "or image_preparation were others; give another output folder"
            )
    elif any(options.output.glob("*.safetensors")):
        # They would count as done, whatever target saw which steps.
        raise DataError(
            f"{options.output} holds regenerated episodes and no {PLAN_FILE} that says of what; delete the folder, or "
            "give another output folder"
        )
    else:
        plan.write(options.output)
    return plan


def thin_out(episodes: list[EpisodePlan], max_frames: int) -> list[EpisodePlan]:
    """At most `max_frames` steps, evenly spread over all of them; 0 keeps all. An episode left without any goes."""
    places = [(index, step) for index, episode in enumerate(episodes) for step in episode.steps]
    count = min(max_frames or len(places), len(places))
    kept = [places[i * len(places) // count] for i in range(count)]
    return [
        EpisodePlan(episodes[index].file, episodes[index].episode, [step for _, step in steps])
        for index, steps in groupby(kept, key=lambda place: place[0])
    ]


def _read(todo: list[EpisodePlan]) -> Iterator[tuple[EpisodePlan, Demonstration]]:
    """The planned episodes with their images; files with nothing to do are not opened."""
    for file, group in groupby(todo, key=lambda episode: episode.file):
        wanted = {episode.episode: episode for episode in group}
        for index, demonstration in enumerate(read_demonstrations(Path(file))):
            if episode := wanted.pop(index, None):
                yield episode, demonstration
            if not wanted:
                break


def _act(
    policy: OpenVLAPolicy, input_ids: Tensor, demonstration: Demonstration, steps: list[int], batch_size: int
) -> dict[str, Tensor]:
    """The tensors of one episode's file; see `RegeneratedFrame`, with the steps first."""
    parts: dict[str, list[Tensor]] = {"patches": [], "features": [], "tokens": []}
    for start in range(0, len(steps), batch_size):
        images = [demonstration.images[step] for step in steps[start : start + batch_size]]
        batch = torch.cat([pixels(image, policy.preparation) for image in images])
        actions = act_greedily(policy.decoder.target, input_ids, batch)
        parts["patches"].append(actions.patches.to("cpu", DTYPE))
        parts["features"].append(actions.features.to("cpu", DTYPE))
        parts["tokens"].append(actions.tokens.cpu())
    tensors = {name: torch.cat(values) for name, values in parts.items()}
    if not all(tensors[name].isfinite().all() for name in ("patches", "features")):
        raise DecodeError(
            f"the target's features on {demonstration.language!r} are not finite in {DTYPE}; "
            "check the checkpoint's weights"
        )
    return {"input_ids": input_ids, **tensors}
