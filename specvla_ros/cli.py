"""The `specvla` command."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer
from rich.console import Console
from rich.markup import escape

from specvla_ros.errors import SpecVLAError
from specvla_ros.gpu_memory import shortage
from specvla_ros.json_option import Json, writable, write_json
from specvla_ros.machine import installed_version
from specvla_ros.model_options import Device, ImagePreparation, UnnormKey
from specvla_ros.ros import require_ros
from specvla_ros.sim.holding import HOLD_TIME
from specvla_ros.sourced_ros import leave_sourced_ros
from specvla_ros.training.cli import app as train_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(train_app, name="train")

SCENES_OF_A_POLICY = 4
"""At once, by default."""

Checkpoint = Annotated[
    str, typer.Option(help="OpenVLA checkpoint: directory or hub name. Empty: the small model of this package.")
]
Draft = Annotated[
    str,
    typer.Option(help="none, hold, linear, eagle (the checkpoint's own), a directory or hub name, or several: A+B."),
]
Threshold = Annotated[
    str,
    typer.Option(
        help="Acceptance distance in bins: one number, or seven with commas between them, by dimension; 0 is greedy "
        "decoding."
    ),
]
Suite = Annotated[str, typer.Option(help="LIBERO suite.")]
TaskIndex = Annotated[int, typer.Option(min=0, help="Index of the task in its suite.")]
Episode = Annotated[int, typer.Option(min=0, max=49, help="Index of the fixed initial state.")]
MaxSteps = Annotated[int, typer.Option(min=0, help="Steps at most; 0 is the suite's limit.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Weights = Annotated[str, typer.Option(help="full, or the language model's layers in 8 bits: float8 or int8.")]
Bag = Annotated[Path, typer.Argument(metavar="BAG", help="rosbag2 folder, mcap or sqlite3.")]
ImageTopic = Annotated[str, typer.Option(help="Image or CompressedImage in the bag; empty: image or image/compressed.")]
InstructionTopic = Annotated[str, typer.Option(help="String in the bag: what to do; each begins an episode.")]
BagInstruction = Annotated[str, typer.Option(help="For a bag that does not say what the robot should do.")]
FastRendering = Annotated[
    Optional[bool],  # noqa: UP045
    typer.Option(
        help="Fewer triangles, no reflections: three times the frames a second. By default on for the package's own "
        "model, which was trained with it, and off for a checkpoint, which was not."
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"specvla_ros {installed_version('specvla_ros')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """OpenVLA on a robot, fast: speculative decoding with a live acceptance threshold."""


@app.command()
def demo(
    suite: Suite = "libero_spatial",
    task: TaskIndex = 1,
    episode: Episode = 0,
    max_steps: MaxSteps = 120,
    checkpoint: Checkpoint = "",
    draft: Draft = "hold",
    threshold: Threshold = "0",
    unnorm_key: UnnormKey = "",
    image_preparation: ImagePreparation = "auto",
    fast_rendering: FastRendering = None,
    output: Annotated[Path, typer.Option(help="Folder for video, figures and logs.")] = Path("runs/demo"),
    json_file: Json = None,
) -> None:
    """Watch the policy node and LIBERO talk over ROS 2 topics, two processes in closed loop."""
    require_ros("specvla demo")
    from specvla_ros.demo import DemoOptions, run_demo

    policy = _node_policy(checkpoint, draft, threshold, unnorm_key) | {"image_preparation": image_preparation}
    scene = {"suite": suite, "task": task, "episode": episode, "max_steps": max_steps}
    bridge = {**scene, "fast_rendering": _renders_fast(fast_rendering, checkpoint)}
    options = DemoOptions(policy, bridge, output)
    write_json(run_demo(options, Console(stderr=str(json_file) == "-")), json_file)


@app.command()
def act(
    image: Annotated[
        Path, typer.Option(help="As the camera gives it, any format that Pillow reads. LIBERO's are upside down.")
    ],
    instruction: Annotated[str, typer.Option(help="What the robot should do.")],
    checkpoint: Checkpoint = "",
    draft: Draft = "none",
    threshold: Threshold = "0",
    unnorm_key: UnnormKey = "",
    image_preparation: ImagePreparation = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    json_file: Json = None,
) -> None:
    """One image and one instruction to one action."""
    from specvla_ros.act import print_action, read_picture
    from specvla_ros.evaluation.threshold import parse_threshold, require_draft
    from specvla_ros.runtime import load_policy

    bins = parse_threshold(threshold)
    require_draft([draft], [bins])
    picture = read_picture(image)
    policy = load_policy(
        checkpoint or None,
        draft,
        bins,
        device,
        dtype,
        unnorm_key or None,
        preparation=image_preparation,
        graphs=False,
    )
    action = policy.act(picture, instruction)
    if json_file is None or str(json_file) != "-":
        print_action(action, Console())
    write_json(
        {
            "values": action.values.tolist(),
            "tokens": list(action.tokens),
            "accepted": list(action.stats.accepted),
            "forwards": action.stats.forwards,
            "deviations": list(action.stats.deviations),
            "milliseconds": action.stats.milliseconds,
        },
        json_file,
    )


@app.command("eval")
def evaluate(
    suite: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="LIBERO suite, libero_spatial by default; several are evaluated.", show_default=False),
    ] = None,
    task: Annotated[
        Optional[list[int]], typer.Option(help="Index of a task in its suite, once for each; none: all.")  # noqa: UP045
    ] = None,
    trials: Annotated[int, typer.Option(min=1, max=50, help="Initial states of each task, the first ones.")] = 20,
    max_steps: Annotated[int, typer.Option(min=0, help="Steps of an episode at most; 0 is the suite's limit.")] = 0,
    checkpoint: Checkpoint = "",
    draft: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="As of `specvla act`, none by default; several are compared.", show_default=False),
    ] = None,
    threshold: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Bins: one number, or seven with commas between them, by dimension; 0 by default, several are "
            "compared.",
            show_default=False,
        ),
    ] = None,
    latency: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="lockstep: the scene waits for the policy. Or it moves on, in simulated time, for as long as a "
            "command takes: measured, fixed:MS, or model:FLOOR_MS+ROUND_MS, which emulates another machine; "
            "model:bench.json#ROW takes both from a benchmark. Several are compared.",
            show_default=False,
        ),
    ] = None,
    hold_time: Annotated[
        float, typer.Option(min=0.0, help="When the scene moves on: seconds after its frame that a command holds.")
    ] = HOLD_TIME,
    fast_rendering: FastRendering = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    weights: Weights = "full",
    seed: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option(
            min=0,
            help="Of what an initial state does not hold, the same for every episode; 0 by default, several are "
            "compared.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(min=0, help="Processes, each with a scene; 0: one a core, at most four that share a model."),
    ] = 0,
    one_policy: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--one-policy/--policy-each",
            help="One model decides for all processes, or each has its own; by default one on a GPU.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder for results; started again with the same options it goes on there.")
    ] = Path("runs/eval"),
    videos: Annotated[int, typer.Option(min=0, help="Film so many episodes of each task.")] = 0,
    speed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Then time so many frames against plain greedy decoding, in turn, into a file speed_*.json for each "
            "suite; 0 times none.",
        ),
    ] = 0,
    ros: Annotated[bool, typer.Option(help="Through the policy node and the LIBERO bridge.")] = False,
    json_file: Json = None,
) -> None:
    """Success rate, steps and tokens per forward on a LIBERO suite, by OpenVLA's protocol.

    With several suites, drafts, thresholds, latencies or seeds every combination is evaluated, each in a folder of its
    own.
    """
    if ros:
        require_ros("specvla eval --ros")
    from specvla_ros.evaluation.command import run_command
    from specvla_ros.evaluation.latency import LOCKSTEP, model_from_benchmark
    from specvla_ros.evaluation.options import EvaluationOptions
    from specvla_ros.evaluation.sweep import combinations
    from specvla_ros.evaluation.threshold import parse_threshold
    from specvla_ros.runtime import select_device

    shares = select_device(device).type == "cuda" if one_policy is None else one_policy
    suites = suite or ["libero_spatial"]
    options = EvaluationOptions(
        suite=suites[0],
        output=output,
        tasks=tuple(task or ()),
        trials=trials,
        max_steps=max_steps,
        checkpoint=checkpoint,
        hold_time=hold_time,
        fast_rendering=_renders_fast(fast_rendering, checkpoint),
        device=device,
        dtype=dtype,
        weights=weights,
        workers=workers or _workers(shares),
        one_policy=shares,
        videos=videos,
        ros=ros,
    )
    thresholds = [parse_threshold(text) for text in threshold or ["0"]]
    sources = dict(model_from_benchmark(text) for text in latency or [LOCKSTEP])
    sweep = [
        replace(one, latency_source=sources[one.latency])
        for one in combinations(options, draft or ["none"], thresholds, list(sources), suites, seed or [0])
    ]
    console = Console(stderr=json_file is not None and str(json_file) == "-")
    write_json(run_command(sweep, speed, output, console), json_file)


@app.command()
def bench(
    checkpoint: Checkpoint = "",
    size: Annotated[str, typer.Option(help="Random weights of these sizes instead of a checkpoint: 7b or tiny.")] = "",
    draft: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="As of `specvla act`, once for each; by default hold, linear and both, and eagle with a size, where "
            "it is an untrained head.",
            show_default=False,
        ),
    ] = None,
    imposed: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="More rows, whose accepted lengths are drawn: `paper`, Spec-VLA's published means (default with a "
            "size), or a bench.json, what was measured there.",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="LIBERO .hdf5 demonstrations, or .npz with images and instruction; otherwise an episode is rendered.",
            show_default=False,
        ),
    ] = None,
    save_frames: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Keep the images as .npz, for a machine without LIBERO.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Images, at most.")] = 100,
    device: Device = "auto",
    dtype: Dtype = "auto",
    unnorm_key: UnnormKey = "",
    threads: Annotated[int, typer.Option(min=0, help="Of torch on the CPU; 0: its own choice.")] = 0,
    fast_rendering: FastRendering = None,
    weights: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="More rows of greedy decoding, with these weights: float8, int8.", show_default=False),
    ] = None,
    ahead: Annotated[
        bool, typer.Option("--ahead", help="On a GPU: prepare each image while the one before is decoded.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder for bench.json, bench.md and plots.")] = Path("runs/bench"),
    json_file: Json = None,
) -> None:
    """Where the milliseconds of an action go, by draft and threshold, in turn on the same images."""
    from specvla_ros.bench.command import run_bench
    from specvla_ros.bench.options import BenchOptions

    options = BenchOptions(
        checkpoint=checkpoint,
        size=size,
        drafts=tuple(draft or ()),
        imposed=tuple(imposed or ()),
        frames=frames,
        save_frames=save_frames,
        count=count,
        device=device,
        dtype=dtype,
        unnorm_key=unnorm_key,
        threads=threads,
        fast_rendering=_renders_fast(fast_rendering, checkpoint),
        weights=tuple(weights or ()),
        ahead=ahead,
        output=output,
    )
    write_json(run_bench(options, Console(stderr=str(json_file) == "-")), json_file)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="What `specvla eval --output` was given.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for the page, its tables and drawings; by default `report` in RUN_DIR."),
    ] = None,
    case_study: Annotated[
        str,
        typer.Option(help="First decode an action of this evaluation again, by its folder in RUN_DIR, and draw it."),
    ] = "",
) -> None:
    """One page with an evaluation's or a sweep's tables, plots and films; the tables also as CSV and Markdown."""
    from specvla_ros.report.report import add_case_study, write_report

    if case_study:
        add_case_study(folder, case_study)
    page = write_report(folder, output or folder / "report")
    Console().print(f"report: {page}", highlight=False, soft_wrap=True)


@app.command("record")
def record_bag(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="New rosbag2 folder.")],
    suite: Suite = "libero_spatial",
    task: TaskIndex = 0,
    episode: Episode = 0,
    max_steps: MaxSteps = 120,
    checkpoint: Checkpoint = "",
    draft: Draft = "hold",
    threshold: Threshold = "0",
    unnorm_key: UnnormKey = "",
    image_preparation: ImagePreparation = "auto",
    jpeg: Annotated[
        int, typer.Option(min=0, max=100, help="Quality of compressed images, which the policy sees; 0: raw images.")
    ] = 0,
    storage: Annotated[str, typer.Option(help="mcap or sqlite3.")] = "mcap",
    fast_rendering: FastRendering = None,
    output: Annotated[Path, typer.Option(help="Folder for video, figures and logs.")] = Path("runs/record"),
    json_file: Json = None,
) -> None:
    """Record an episode of policy node and LIBERO over ROS 2 topics into a bag."""
    require_ros("specvla record")
    from specvla_ros.bags.record import record
    from specvla_ros.demo import DemoOptions

    policy = _node_policy(checkpoint, draft, threshold, unnorm_key) | {"image_preparation": image_preparation}
    scene = {"suite": suite, "task": task, "episode": episode, "max_steps": max_steps}
    bridge = {**scene, "fast_rendering": _renders_fast(fast_rendering, checkpoint)}
    options = DemoOptions(policy, bridge, output)
    write_json(record(options, bag, storage, jpeg, Console(stderr=str(json_file) == "-")), json_file)


@app.command("replay-check")
def check_replay(
    bag: Bag,
    fast: Annotated[
        bool, typer.Option("--fast", help="Wait for each command, then show the next image; else at the bag's pace.")
    ] = False,
    checkpoint: Checkpoint = "",
    draft: Draft = "hold",
    device: Device = "auto",
    unnorm_key: UnnormKey = "",
    image_preparation: ImagePreparation = "auto",
    instruction: BagInstruction = "",
    image_topic: ImageTopic = "",
    instruction_topic: InstructionTopic = "/instruction",
    command_topic: Annotated[str, typer.Option(help="EndEffectorCommand in the bag.")] = "/ee_command",
    json_file: Json = None,
) -> None:
    """Replay a bag's images to the policy node and compare its tokens with the recorded ones; 1 if any differs."""
    require_ros("specvla replay-check")
    from specvla_ros.bags.player import prepare_middleware
    from specvla_ros.bags.recording import Topics
    from specvla_ros.bags.replay_check import print_check, replay_check

    prepare_middleware()
    policy = {
        "checkpoint": checkpoint,
        "draft": draft,
        "device": device,
        "unnorm_key": unnorm_key,
        "image_preparation": image_preparation,
    }
    report = replay_check(bag, Topics(image_topic, instruction_topic, command_topic), policy, fast, instruction)
    print_check(report, Console(stderr=str(json_file) == "-"))
    write_json(report, json_file)
    if report["differences"]:
        raise typer.Exit(1)


@app.command("compare")
def compare_conditions(
    bag: Bag,
    threshold: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Bins: one number, or seven with commas between them, by dimension; 0 by default.", show_default=False
        ),
    ] = None,
    draft: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="As of `specvla act`, hold by default.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="As of `specvla act`, the package's own by default.", show_default=False),
    ] = None,
    frames: Annotated[int, typer.Option(min=0, help="The first ones only; 0: all.")] = 0,
    instruction: BagInstruction = "",
    image_topic: ImageTopic = "",
    instruction_topic: InstructionTopic = "/instruction",
    device: Device = "auto",
    dtype: Dtype = "auto",
    unnorm_key: UnnormKey = "",
    image_preparation: ImagePreparation = "auto",
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(callback=writable, help="Draw it into this .svg, .png or .pdf."),
    ] = None,
    json_file: Json = None,
) -> None:
    """Decode a bag's images under several thresholds, drafts or checkpoints: what does each cost, what does it change?

    Every combination of what is given is compared with the first one.
    """
    require_ros("specvla compare")
    from functools import partial

    from specvla_ros.bags.comparison import compare
    from specvla_ros.bags.comparison_view import print_comparison, require_plottable, write_plot
    from specvla_ros.bags.condition import combine, load
    from specvla_ros.bags.recording import Recording, Topics
    from specvla_ros.evaluation.threshold import parse_threshold
    from specvla_ros.nodes.bag import BagReader

    if plot:
        require_plottable(plot)
    conditions = combine(checkpoint or [""], draft or ["hold"], [parse_threshold(text) for text in threshold or ["0"]])
    loading = partial(load, device=device, dtype=dtype, unnorm_key=unnorm_key, preparation=image_preparation)
    with BagReader(bag) as reader:
        recording = Recording(reader, Topics(image_topic, instruction_topic), instruction)
        report = compare(conditions, recording, frames, loading)
    print_comparison(report, Console(stderr=str(json_file) == "-"))
    if plot:
        write_plot(report, plot)
    write_json(report, json_file)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long, from the first command on.")] = 60.0,
    rate: Annotated[float, typer.Option(min=0.1, max=200.0, help="Images a second.")] = 20.0,
    policy: Annotated[str, typer.Option(help="openvla, or fake: without a model.")] = "openvla",
    checkpoint: Checkpoint = "",
    draft: Draft = "hold",
    threshold: Threshold = "0",
    unnorm_key: UnnormKey = "",
    device: Device = "auto",
    output: Annotated[Path, typer.Option(help="Folder for samples, plot and log.")] = Path("runs/soak"),
    json_file: Json = None,
) -> None:
    """Run the policy node against a synthetic camera for hours: its memory and latency over time."""
    require_ros("specvla soak")
    from specvla_ros.soak import SoakOptions, run_soak

    node = _node_policy(checkpoint, draft, threshold, unnorm_key) | {"policy": policy, "device": device}
    options = SoakOptions(policy=node, minutes=minutes, rate=rate, output=output)
    write_json(run_soak(options, Console(stderr=str(json_file) == "-")), json_file)


@app.command()
def doctor(json_file: Json = None) -> None:
    """Say what is installed, which GPU and middleware, whether rendering works, and what to do about the rest."""
    from specvla_ros.doctor import examine, print_findings

    findings = examine()
    if json_file is None or str(json_file) != "-":
        print_findings(findings, Console())
    found = {one.name: {"ok": one.ok, "found": one.found, "advice": "" if one.ok else one.advice} for one in findings}
    write_json(found, json_file)
    if any(not finding.ok and finding.required for finding in findings):
        raise typer.Exit(1)


def _node_policy(checkpoint: str, draft: str, threshold: str, unnorm_key: str) -> dict[str, Any]:
    """Parameters of the policy node; one number is its `threshold`, which stays live then."""
    from specvla_ros.evaluation.threshold import parse_threshold, require_draft

    bins = parse_threshold(threshold)
    require_draft([draft], [bins])
    limits = {"threshold": bins} if isinstance(bins, int) else {"thresholds": list(bins)}
    return {"checkpoint": checkpoint, "unnorm_key": unnorm_key, "draft": draft, **limits}


def _workers(share_one_policy: bool) -> int:
    """One for each core; for one policy as many as it needs not to wait for pictures: each takes memory of its own."""
    from specvla_ros.processes import usable_cores

    return min(usable_cores(), SCENES_OF_A_POLICY) if share_one_policy else usable_cores()


def _renders_fast(wanted: bool | None, checkpoint: str) -> bool:
    """Where the user does not say: as the package's own model was trained, and as a published checkpoint was not."""
    return not checkpoint if wanted is None else wanted


def main() -> NoReturn:
    """Run a command; an error that a user can act on is one sentence and exit code 1."""
    leave_sourced_ros()
    # As Ctrl-C does, so that the processes which were started end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        app()
    except SpecVLAError as error:
        _exit_with(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _exit_with(f"{error.filename}: {error.strerror}")
    except RuntimeError as error:
        if reason := shortage(error):
            _exit_with(
                "the GPU's memory is used up: end what else uses it, or take fewer drafts, fewer workers, or weights "
                f"of 8 bits ({reason})"
            )
        if "failed to initialize logging" in str(error):  # of rclpy, where HOME is not set or cannot be written
            _exit_with(f"ROS 2 has no folder for its logs: export ROS_LOG_DIR=FOLDER with one it can write ({error})")
        raise
    sys.exit(0)


def _exit_with(message: str) -> NoReturn:
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
