"""`specvla soak`: the policy node and a synthetic camera in closed loop for hours; its memory and latency over time."""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from sensor_msgs.msg import Image
from std_msgs.msg import String

from specvla_ros.demo import LOADING, node_process, require_success, with_checkpoint
from specvla_ros.errors import ConfigurationError, SimulationError
from specvla_ros.msg import EndEffectorCommand
from specvla_ros.nodes import qos
from specvla_ros.nodes.conversion import rgb_to_image
from specvla_ros.nodes.messages import nanoseconds
from specvla_ros.plotting import require_matplotlib
from specvla_ros.report.palette import SURFACE
from specvla_ros.report.plots import Curve, Panel, draw_panels
from specvla_ros.report.svg import style

SIZE = 256
"""Height and width of the synthetic images in pixels."""
SAMPLES = 100
"""Of a whole run; one stands for at least a second."""


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """How long, how often, and with which parameters of the policy node.

    Attributes:
        minutes: counted from the first command.
        rate: images a second.
    """

    policy: dict[str, Any]
    minutes: float
    rate: float
    output: Path


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in one period; latencies are from the image's stamp to its command, in the camera's process."""

    minutes: float
    memory_mib: float
    commands: int
    p50_ms: float
    p95_ms: float


class Camera(Node):
    """Publishes images whose brightness the commands move, and times their commands."""

    def __init__(self, rate: float, namespace: str) -> None:
        super().__init__("soak", namespace=namespace)
        self.failure = ""
        self._latencies: list[float] = []
        self._brightness = 0.5
        self._random = np.random.default_rng(0)
        self._images = self.create_publisher(Image, "image", qos.IMAGE)
        self._instructions = self.create_publisher(String, "instruction", qos.LATCHED)
        self.create_subscription(EndEffectorCommand, "ee_command", self._on_command, qos.EVERY_COMMAND)
        self.create_subscription(DiagnosticArray, "diagnostics", self._on_diagnostics, qos.STATS)
        self.create_timer(1.0 / rate, self._show)
        self._instructions.publish(String(data="pick up the black bowl and place it on the plate"))

    def take_latencies(self) -> list[float]:
        """Milliseconds of every command since the last call."""
        taken, self._latencies = self._latencies, []
        return taken

    def _show(self) -> None:
        noise = self._random.integers(0, 64, (SIZE, SIZE, 3), dtype=np.uint8)
        image = rgb_to_image(noise + np.uint8(190 * self._brightness))
        image.header.stamp = self.get_clock().now().to_msg()
        self._images.publish(image)

    def _on_command(self, command: EndEffectorCommand) -> None:
        if command.held:
            return
        age = self.get_clock().now().nanoseconds - nanoseconds(command.header.stamp)
        self._latencies.append(age / 1e6)
        self._brightness = (self._brightness + command.delta_position.x + 0.07) % 1.0

    def _on_diagnostics(self, diagnostics: DiagnosticArray) -> None:
        for status in diagnostics.status:
            if status.level == DiagnosticStatus.ERROR:
                self.failure = status.message


def run_soak(options: SoakOptions, console: Console) -> dict[str, Any]:
    """Run it; its figures. `soak.csv` grows with every sample, `soak.svg` is drawn at the end.

    Raises:
        CheckpointError: the checkpoint is not to be had.
        SimulationError: the policy node ended, reported an error or gave no command.
        ConfigurationError: the output cannot be written, or matplotlib is not installed.
    """
    require_matplotlib("the soak's plot")
    output = options.output.resolve()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"output {output} cannot be made a folder: {error.strerror}") from error
    parameters = with_checkpoint(options.policy)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    # Where no robot listens, even without a dry run.
    namespace = f"/soak_{os.getpid()}"
    remappings = (f"__ns:={namespace}", "/diagnostics:=diagnostics")
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with node_process("policy_node", "policy.yaml", parameters, output, remappings) as policy:
            camera = Camera(options.rate, namespace)
            samples = _collect(camera, policy, options, output / "soak.csv", console)
            camera.destroy_node()
    finally:
        rclpy.try_shutdown()
    draw(samples, output / "soak.svg")
    report = summarise(samples)
    console.print(f"samples: {output / 'soak.csv'}\nplot:    {output / 'soak.svg'}", highlight=False, soft_wrap=True)
    return report


def _collect(
    camera: Camera, policy: subprocess.Popen[bytes], options: SoakOptions, file: Path, console: Console
) -> list[Sample]:
    """A sample for each period; Ctrl-C ends it early."""
    samples: list[Sample] = []
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*Sample.__dataclass_fields__])
        writer.writeheader()
        try:
            _spin(camera, policy, LOADING, options.output, until_command=True)
            started = time.monotonic()
            while time.monotonic() - started < 60.0 * options.minutes:
                _spin(camera, policy, max(1.0, 60.0 * options.minutes / SAMPLES), options.output)
                samples.append(_sample(camera, policy.pid, (time.monotonic() - started) / 60.0))
                writer.writerow({key: round(value, 3) for key, value in asdict(samples[-1]).items()})
                stream.flush()
                last = samples[-1]
                console.print(
                    f"{last.minutes:6.1f} min: {last.memory_mib:.1f} MiB, {last.commands} commands, "
                    f"p50 / p95 {last.p50_ms:.1f} / {last.p95_ms:.1f} ms",
                    highlight=False,
                )
        except KeyboardInterrupt:
            console.print("stopped early")
    if not samples:
        raise SimulationError("it was stopped before the first sample")
    return samples


def _spin(
    camera: Camera, policy: subprocess.Popen[bytes], seconds: float, output: Path, until_command: bool = False
) -> None:
    """Serve the camera for so long, or until a command comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        rclpy.spin_once(camera, timeout_sec=0.1)
        if camera.failure:
            raise SimulationError(f"the policy node reports: {camera.failure}")
        if policy.poll() is not None:
            require_success(policy, "policy_node", output)
            raise SimulationError("the policy node has ended by itself")
        if until_command and camera.take_latencies():
            return
    if until_command:
        raise SimulationError(f"no command came within {seconds:.0f} s; see policy_node.log in {output}")


def _sample(camera: Camera, process: int, minutes: float) -> Sample:
    latencies = camera.take_latencies()
    if not latencies:
        raise SimulationError(f"no command came any more after {minutes:.1f} minutes; soak.csv holds what was before")
    p50, p95 = np.percentile(latencies, [50, 95])
    return Sample(minutes, resident_mib(process), len(latencies), float(p50), float(p95))


def resident_mib(process: int) -> float:
    """A process's memory that is in RAM, by /proc."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def summarise(samples: list[Sample]) -> dict[str, Any]:
    """Growth is that of a line through the second half: what a node takes at its start is no leak."""
    half = samples[len(samples) // 2 :]
    growth = None
    if len(half) > 1:
        growth = 60.0 * statistics.linear_regression([s.minutes for s in half], [s.memory_mib for s in half]).slope
    return {
        "minutes": samples[-1].minutes,
        "commands": sum(sample.commands for sample in samples),
        "memory_first_mib": samples[0].memory_mib,
        "memory_last_mib": samples[-1].memory_mib,
        "memory_growth_mib_per_hour": growth,
        "latency_p50_ms": statistics.median(sample.p50_ms for sample in samples),
        "latency_p95_worst_ms": max(sample.p95_ms for sample in samples),
        "samples": [asdict(sample) for sample in samples],
    }


def draw(samples: list[Sample], file: Path) -> None:
    """Memory and latency over time."""
    minutes = [sample.minutes for sample in samples]
    memory = Curve("memory of the policy node", minutes, [sample.memory_mib for sample in samples])
    median = Curve("latency, p50", minutes, [sample.p50_ms for sample in samples])
    slow = Curve("latency, p95", minutes, [sample.p95_ms for sample in samples])
    with style():
        panels = [Panel("resident memory [MiB]", "minutes", [memory])]
        panels.append(Panel("image stamp to command [ms]", "minutes", [median, slow]))
        figure = draw_panels(panels)
        figure.axes[1].legend()
        figure.savefig(file, facecolor=SURFACE)
