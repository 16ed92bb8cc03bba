"""`specvla demo`: policy node and LIBERO bridge as two processes, and their life on one screen."""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import ExternalShutdownException
from rclpy.signals import SignalHandlerOptions
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from specvla_ros.errors import ConfigurationError, SimulationError
from specvla_ros.msg import DecodeStats, EpisodeStatus
from specvla_ros.nodes import qos
from specvla_ros.share import share_folder

STOP_SECONDS = 10.0
LOADING = 600.0
"""Seconds until a policy that has given no command is taken to give none: a large model loads for minutes."""
LOOK_SECONDS = 0.5
"""Between two looks for other nodes that publish commands."""
BROKEN_SECONDS = 60.0
"""Without an action from a policy node that reports an error: it is one that does not pass."""
LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
POLICY_NAME = "specvla"
"""Of the policy node in its diagnostics."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Parameters that differ from the YAML files, and the folder for video, figures and logs."""

    policy: dict[str, Any]
    bridge: dict[str, Any]
    output: Path


@dataclass
class Watch:
    """What has been heard on the topics."""

    started: float = field(default_factory=time.monotonic)
    first_action: float | None = None
    last_action: float = -math.inf
    first_step: float | None = None
    status: EpisodeStatus | None = None
    stats: list[DecodeStats] = field(default_factory=list)
    failure: str = ""

    def on_stats(self, stats: DecodeStats) -> None:
        """An action was decoded."""
        self.last_action = time.monotonic()
        if self.first_action is None:
            self.first_action = self.last_action - self.started
        self.stats.append(stats)

    def on_status(self, status: EpisodeStatus) -> None:
        """A frame was shown."""
        if status.step == 1:
            self.first_step = self.first_step or time.monotonic()
        self.status = status

    def on_diagnostics(self, diagnostics: DiagnosticArray) -> None:
        """The policy node lives on without a policy; a demo has nothing to wait for then. Others report here too."""
        is_idle = time.monotonic() - self.last_action > BROKEN_SECONDS
        for status in diagnostics.status:
            if status.name == POLICY_NAME and status.level == DiagnosticStatus.ERROR and is_idle:
                self.failure = status.message

    def on_publishers(self, count: int) -> None:
        """So many publish commands; the scene would follow whichever comes first."""
        if count > 1:
            self.failure = (
                f"{count} nodes publish ee_command in this ROS domain: end the others, or export ROS_DOMAIN_ID=N with "
                "another N here"
            )

    @property
    def steps_per_second(self) -> float:
        """Control steps since the first one."""
        if self.first_step is None or self.status is None or self.status.step < 2:
            return 0.0
        return (self.status.step - 1) / max(time.monotonic() - self.first_step, 1e-6)

    @property
    def accept_length(self) -> float:
        """Tokens per target forward: of all actions together, not the mean of each one's."""
        return harmonic_mean(stats.accept_length for stats in self.stats) if self.stats else 0.0


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """One episode in closed loop; its figures.

    Raises:
        CheckpointError: the checkpoint is not to be had.
        SimulationError: one of the two processes ended early; the message holds the last lines of its log.
    """
    output = options.output.resolve()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"output {output} cannot be made a folder: {error.strerror}") from error
    # The scene waits, so no image is too old.
    policy_parameters = {**with_checkpoint(options.policy), "max_image_age": 0.0}
    video, result = output / "episode.mp4", output / "result.json"
    result.unlink(missing_ok=True)
    # The demo is one machine's business, whoever else is on the network.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if not options.policy["checkpoint"]:
        console.print(
            "The model is the package's own small one, trained in simulation: it solves some tasks, not for a robot. A "
            "real checkpoint: --checkpoint DIR"
        )
    bridge_parameters = {**options.bridge, "policy_timeout": LOADING, "video": video, "result": result}
    watch = Watch()
    with (
        node_process("policy_node", "policy.yaml", policy_parameters, output) as policy,
        node_process("libero_bridge", "libero.yaml", bridge_parameters, output) as bridge,
        listening(watch),
    ):
        show_until_over(console, watch, policy, bridge)
        is_policy_first = bridge.poll() is None
    if watch.failure:
        raise SimulationError(watch.failure)
    children = [(policy, "policy_node"), (bridge, "libero_bridge")]
    children = children if is_policy_first else children[::-1]
    for child, name in children:
        require_success(child, name, output)
    if not result.exists():
        raise SimulationError(f"{children[0][1]} was ended before the episode was over; its log is in {output}")
    report = {
        **json.loads(result.read_text()),
        **conditions(options.policy),
        "seconds_to_first_action": round(watch.first_action or 0.0, 2),
    }
    console.print(figures_table(report))
    console.print(f"video:   {video}\nfigures: {result}", highlight=False, soft_wrap=True)
    return report


def with_checkpoint(policy: Mapping[str, Any]) -> dict[str, Any]:
    """A policy node's parameters with a checkpoint that is here: a download takes its time, and shows how far it is.

    Raises:
        CheckpointError: it is not to be had.
    """
    if not policy.get("checkpoint"):
        return dict(policy)
    from specvla_ros.shipped import checkpoint_directory

    return {**policy, "checkpoint": checkpoint_directory(policy["checkpoint"])}


def conditions(policy: dict[str, Any]) -> dict[str, Any]:
    """What decides the actions, of a policy node's parameters; the threshold is one number, or a list of seven."""
    return {"draft": policy["draft"], "threshold": policy.get("thresholds", policy.get("threshold"))}


@contextmanager
def node_process(
    name: str, config: str, parameters: dict[str, Any], output: Path, remappings: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A node with its YAML file and some parameters, its log in the output folder; told to stop at the end.

    Args:
        remappings: of names, such as `image:=camera/image`.
    """
    command = [sys.executable, "-m", f"specvla_ros.nodes.{name}", "--ros-args"]
    command += ["--params-file", str(share_folder() / "config" / config)]
    for key, value in parameters.items():
        text = json.dumps(value) if not isinstance(value, Path) else json.dumps(str(value))
        command += ["-p", f"{key}:={text}"]
    for remapping in remappings:
        command += ["-r", remapping]
    with (output / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _end_with_parent() -> None:
    """Have the kernel interrupt this child when its parent is gone, killed for example: it would go on commanding."""
    if sys.platform == "linux":
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def require_success(child: subprocess.Popen[bytes], name: str, output: Path) -> None:
    """Of a node process that has ended.

    Raises:
        SimulationError: its exit code is not 0; the message holds the last lines of its log.
    """
    if child.returncode != 0:
        tail = (output / f"{name}.log").read_text(errors="replace").strip().splitlines()[-5:]
        raise SimulationError(f"{name} ended with exit code {child.returncode}:\n" + "\n".join(tail))


@contextmanager
def listening(watch: Watch) -> Iterator[None]:
    """A third participant on the topics, for the screen."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # a signal ends this process, and its nodes with it
    node = rclpy.create_node("demo")
    node.create_subscription(DecodeStats, "decode_stats", watch.on_stats, qos.STATS)
    node.create_subscription(EpisodeStatus, "episode_status", watch.on_status, qos.LATCHED)
    node.create_subscription(DiagnosticArray, "/diagnostics", watch.on_diagnostics, qos.STATS)
    node.create_timer(LOOK_SECONDS, lambda: watch.on_publishers(node.count_publishers("ee_command")))

    def spin() -> None:
        with suppress(ExternalShutdownException):
            rclpy.spin(node)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield
    finally:
        rclpy.try_shutdown()
        thread.join()


def show_until_over(
    console: Console, watch: Watch, policy: subprocess.Popen[bytes], bridge: subprocess.Popen[bytes]
) -> None:
    """Redraw the screen until the bridge ends its episode, or one of the two fails."""
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    bar = progress.add_task("loading", total=None)
    with Live(console=console, refresh_per_second=8) as live:
        while bridge.poll() is None and policy.poll() is None and not watch.failure:
            status = watch.status
            if status is not None:
                description = "waiting for the policy" if status.step == 0 else "control steps"
                progress.update(bar, description=description, completed=status.step, total=status.max_steps)
            live.update(Group(live_table(watch, policy, bridge), progress))
            time.sleep(0.1)
    if not console.is_terminal:
        console.print()


def live_table(watch: Watch, policy: subprocess.Popen[bytes], bridge: subprocess.Popen[bytes]) -> Table:
    """One row a process."""
    table = Table("process", "pid", "what it does now")
    last = watch.stats[-1] if watch.stats else None
    if last is None:
        policy_text, bridge_text = "loading the model", "building the scene"
    else:
        policy_text = (
            f"{len(watch.stats)} actions, {last.decode_ms:.0f} ms each, "
            f"{watch.accept_length:.2f} tokens per forward, last accepted {list(last.accepted)}"
        )
        bridge_text = f"{watch.steps_per_second:.1f} steps/s"
    table.add_row("/specvla", str(policy.pid), policy_text)
    table.add_row("/libero_bridge", str(bridge.pid), bridge_text)
    table.add_row("demo", str(os.getpid()), f"listening for {time.monotonic() - watch.started:.0f} s")
    return table


def figures_table(report: dict[str, Any]) -> Table:
    """The figures of the episode."""
    latency, ros, decode = report["latency_ms"] or {}, report["ros_ms"] or {}, report["decode_ms"] or {}

    def percentiles(values: dict[str, float]) -> str:
        return f"{values['p50']:.1f} / {values['p95']:.1f} ms" if values else "too few steps"

    table = Table("figure", "value", title=report["instruction"])
    table.add_row("task solved", "yes" if report["success"] else "no")
    table.add_row("control steps", str(report["steps"]))
    table.add_row("steps per second in closed loop", str(report["steps_per_second"]))
    table.add_row("image stamp to command, p50 / p95", percentiles(latency))
    table.add_row("  of it the decoder", percentiles(decode))
    table.add_row("  of it ROS", percentiles(ros))
    table.add_row(
        f"tokens per target forward (draft {report['draft']}, threshold {report['threshold']})",
        str(report["accept_length"]),
    )
    table.add_row("start to first action", f"{report['seconds_to_first_action']:.1f} s")
    return table
