"""`specvla train`: demonstrations, the target, and its draft."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console

from specvla_ros.json_option import Json, write_json
from specvla_ros.model_options import Device, ImagePreparation, UnnormKey
from specvla_ros.processes import usable_cores
from specvla_ros.training.target_sizes import TargetSizes

SIZES = TargetSizes()

app = typer.Typer(no_args_is_help=True, help="From demonstrations to a trained target and its draft.")

Data = Annotated[list[Path], typer.Option(help="Folder of LIBERO .hdf5 demonstrations; may be given several times.")]
Minutes = Annotated[float, typer.Option(min=0.0, help="Time budget in minutes, annealed to its end; 0 is none.")]
Workers = Annotated[int, typer.Option(min=0, help="Parallel processes; 0 is one a core.")]


@app.command()
def demos(
    suite: Annotated[str, typer.Option(help="LIBERO suite.")] = "libero_spatial",
    task: Annotated[Optional[list[int]], typer.Option(help="Index of a task; may be repeated. All if absent.")] = None,  # noqa: UP045
    demonstrations: Annotated[int, typer.Option(min=1, help="Successful episodes for each task.")] = 50,
    image_size: Annotated[int, typer.Option(min=16, help="Height and width of the recorded images in pixels.")] = 256,
    fast_rendering: Annotated[bool, typer.Option(help="Fewer triangles, no reflections; evaluate with it too.")] = True,
    disturbed: Annotated[bool, typer.Option(help="Push the arm now and then, to show the way back.")] = True,
    checkpoint: Annotated[
        str,
        typer.Option(help="A target that drives part of the way, corrected by the expert (DAgger)."),
    ] = "",
    skip: Annotated[
        int, typer.Option(min=0, help="Starts to leave out; another round of corrections should meet others.")
    ] = 0,
    workers: Workers = 0,
    output: Annotated[Path, typer.Option(help="Folder for the .hdf5 files; what is there counts.")] = Path(
        "runs/demos"
    ),
    json_file: Json = None,
) -> None:
    """Record scripted experts in LIBERO's own HDF5 layout. Stop it when you like: it goes on where it stood."""
    from specvla_ros.training.collect import collect, outcome_table
    from specvla_ros.training.collect_options import CollectOptions

    options = CollectOptions(
        output=output,
        suite=suite,
        tasks=tuple(task) if task else None,
        demonstrations=demonstrations,
        image_size=image_size,
        fast_rendering=fast_rendering,
        disturbed=disturbed,
        checkpoint=checkpoint,
        skip=skip,
        workers=workers or usable_cores(),
    )
    console = Console(stderr=True)
    outcomes = collect(options, console)
    console.print(outcome_table(options, outcomes))
    write_json(
        [
            {"task": outcome.task, "recorded": outcome.recorded, "failed": outcome.failed, "refused": outcome.refused}
            for outcome in outcomes
        ],
        json_file,
    )


@app.command()
def relabel(data: Data, workers: Workers = 0) -> None:
    """Give recorded demonstrations the actions of today's expert; images stay, so a new expert needs no rendering."""
    from specvla_ros.training.relabel import relabel as relabel_files

    steps = relabel_files(data, workers or usable_cores())
    print(f"{steps} steps relabelled")


@app.command()
def target(
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder for checkpoint, log and state.")] = Path("runs/target"),
    start: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Output of another training, or a checkpoint, to begin with."),
    ] = None,
    minutes: Minutes = 0.0,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames in a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="After warm-up.")] = 1e-3,
    augmentation: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Part of OpenVLA's random crop and colours. A fixed camera needs little."),
    ] = 1.0,
    every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
    vision_width: Annotated[int, typer.Option(help="Width of the DINOv2 tower.")] = SIZES.vision_width,
    vision_depth: Annotated[int, typer.Option(help="Its blocks; the last one never runs.")] = SIZES.vision_depth,
    hidden_size: Annotated[int, typer.Option(help="Width of the language model.")] = SIZES.hidden_size,
    layers: Annotated[int, typer.Option(help="Layers of the language model.")] = SIZES.layers,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, or bfloat16 for the matrix products.")] = "auto",
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Have torch compile the model first; worth its minute in a long run.")
    ] = False,
    threads: Annotated[int, typer.Option(min=0, help="torch's threads on a CPU; 0 is its own choice.")] = 0,
    workers: Workers = 0,
) -> None:
    """Train a small OpenVLA on demonstrations. The same call goes on with a run that was stopped."""
    from specvla_ros.training.target import train_target
    from specvla_ros.training.target_options import TargetOptions

    checkpoint = train_target(
        TargetOptions(
            data=tuple(data),
            output=output,
            start=start,
            sizes=TargetSizes(
                vision_width=vision_width, vision_depth=vision_depth, hidden_size=hidden_size, layers=layers
            ),
            steps=steps,
            minutes=minutes or None,
            batch_size=batch_size,
            learning_rate=learning_rate,
            augmentation=augmentation,
            every=every,
            device=device,
            dtype=dtype,
            compile=compile_model,
            threads=threads or None,
            workers=workers or None,
        )
    )
    Console(stderr=True).print(f"checkpoint: {checkpoint}", highlight=False)


@app.command()
def regenerate(
    checkpoint: Annotated[str, typer.Option(help="The target: directory or hub name.")],
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder for what the target did.")] = Path("runs/regenerated"),
    max_frames: Annotated[int, typer.Option(min=0, help="Steps at most, spread over all; 0 is every one.")] = 20_000,
    batch_size: Annotated[int, typer.Option(min=1, help="Images read at once.")] = 16,
    unnorm_key: UnnormKey = "",
    image_preparation: ImagePreparation = "auto",
    device: Device = "auto",
) -> None:
    """Let the target act greedily on the demonstrations' images; what it saw and answered trains its draft."""
    from specvla_ros.training.regenerate import RegenerateOptions, regenerate

    regenerate(
        RegenerateOptions(
            checkpoint=checkpoint,
            demonstrations=tuple(data),
            output=output,
            max_frames=max_frames,
            batch_size=batch_size,
            unnorm_key=unnorm_key,
            preparation=image_preparation,
            device=device,
        )
    )


@app.command()
def draft(
    checkpoint: Annotated[str, typer.Option(help="The target: directory or hub name.")],
    regenerated: Annotated[Path, typer.Option(help="Folder made by specvla train regenerate.")] = Path(
        "runs/regenerated"
    ),
    output: Annotated[Path, typer.Option(help="The draft's directory.")] = Path("runs/draft"),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    minutes: Minutes = 0.0,
    learning_rate: Annotated[float, typer.Option(help="AdamW's, after warm-up; a small target bears 1e-3.")] = 5e-5,
    warmup_steps: Annotated[int, typer.Option(min=0, help="Steps over which the learning rate rises.")] = 2000,
    batch_size: Annotated[int, typer.Option(min=1, help="Steps of demonstrations in a forward.")] = 16,
    accumulation: Annotated[int, typer.Option(min=1, help="Forwards in an optimiser step.")] = 1,
    unroll: Annotated[int, typer.Option(min=1, max=6, help="Times the head reads its own prediction; 1 is none.")] = 1,
    logits_weight: Annotated[float, typer.Option(help="Of the logits' loss beside the features'.")] = 0.1,
    action_head: Annotated[bool, typer.Option(help="Logits over the 256 action tokens, not the vocabulary.")] = True,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between accept-length measurements.")] = 1000,
    device: Device = "auto",
) -> None:
    """Train Spec-VLA's draft for a target; the one with the longest strict accept length is kept."""
    from specvla_ros.training.draft import DraftOptions, train_draft

    directory = train_draft(
        DraftOptions(
            checkpoint=checkpoint,
            regenerated=regenerated,
            output=output,
            steps=steps,
            minutes=minutes,
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            batch_size=batch_size,
            accumulation=accumulation,
            unroll=unroll,
            logits_weight=logits_weight,
            action_head=action_head,
            validate_every=validate_every,
            device=device,
        )
    )
    Console(stderr=True).print(f"draft: {directory}", highlight=False)


@app.command("lengths")
def accept_lengths(
    data: Data,
    checkpoint: Annotated[str, typer.Option(help="The target. Empty: the small model of this package.")] = "",
    draft: Annotated[Optional[list[str]], typer.Option(help="Draft; may be repeated.")] = None,  # noqa: UP045
    threshold: Annotated[Optional[list[int]], typer.Option(help="Bins; may be repeated. 0, 3, 9 if absent.")] = None,  # noqa: UP045
    frames: Annotated[int, typer.Option(min=1, help="Held-out frames.")] = 400,
    unnorm_key: UnnormKey = "",
    image_preparation: ImagePreparation = "auto",
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Tokens per target forward by draft and threshold, on held-out episodes."""
    from specvla_ros.runtime import load_policy
    from specvla_ros.training.accept_length import accept_length_table, measure_accept_lengths

    policy = load_policy(
        checkpoint, device=device, unnorm_key=unnorm_key or None, preparation=image_preparation, graphs=False
    )
    rows = measure_accept_lengths(policy, draft or ["none", "hold", "linear"], threshold or [0, 3, 9], data, frames)
    Console(stderr=True).print(accept_length_table(rows))
    write_json([row.to_dict() for row in rows], json_file)


@app.command()
def estimate(
    batch_size: Annotated[int, typer.Option(min=1, help="Of regenerating and of draft training.")] = 16,
    unroll: Annotated[int, typer.Option(min=1, max=6, help="As for specvla train draft.")] = 1,
    json_file: Json = None,
) -> None:
    """Memory and disk for the draft of OpenVLA 7B, from its shapes alone; nothing is loaded."""
    from dataclasses import asdict

    from specvla_ros.training.estimate import estimate_needs, estimate_table

    needs = estimate_needs(batch_size, unroll)
    Console(stderr=True).print(estimate_table(needs))
    write_json([asdict(need) for need in needs], json_file)
