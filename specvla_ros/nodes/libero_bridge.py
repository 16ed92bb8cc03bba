"""/libero_bridge: a LIBERO episode in MuJoCo at the other end of the policy node's topics."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from specvla_ros.errors import SimulationError
from specvla_ros.json_option import writable
from specvla_ros.msg import DecodeStats, EndEffectorCommand, EpisodeStatus
from specvla_ros.nodes import qos
from specvla_ros.nodes.bridge_parameters import PARAMETERS
from specvla_ros.nodes.command_box import CommandBox
from specvla_ros.nodes.conversion import rgb_to_compressed, rgb_to_image
from specvla_ros.nodes.episode_log import EpisodeLog
from specvla_ros.nodes.messages import nanoseconds
from specvla_ros.nodes.parameters import declare
from specvla_ros.nodes.run import run_node
from specvla_ros.sim.holding import STEP_NANOSECONDS, is_old, is_stale, without_motion
from specvla_ros.sim.libero import CONTROL_RATE, STEP_LIMITS, Frame, LiberoEnvironment, Task, find_task
from specvla_ros.sim.video import VideoWriter

INSTRUCTION_SECONDS = 1.0
"""That a policy which sees the images may take to subscribe to the instruction too; the replay node never does."""
DELIVERY_SECONDS = 30.0
"""That the instruction may be on its way: DDS repeats it every 3 s, and waits 20 s for a subscriber that was killed."""
FIRST_SIM_TIME = 1_000_000_000
"""Simulated time starts at one second: zero means that no clock has come yet."""


class Environment(Protocol):
    """What the bridge needs of `LiberoEnvironment`."""

    task: Task

    def reset(self, episode: int, seed: int = 0) -> Frame: ...

    def step(self, values: NDArray[np.float64], render: bool = True) -> Frame: ...

    def state(self) -> NDArray[np.float64]: ...

    def close(self) -> None: ...


class LiberoBridge(Node):
    """Runs one episode: images and instruction out, commands in, until success or the last step.

    The simulation lives in the thread that calls `run` (a render context belongs to its thread); the executor spins
    in another and only leaves commands in a box.
    """

    def __init__(self, create: Callable[[dict[str, Any]], Environment]) -> None:
        super().__init__("libero_bridge")
        self._values = declare(self, PARAMETERS)
        self._create = create
        self._box = CommandBox()
        self._log = EpisodeLog()
        self._step = 0
        self._patience = self._values["command_timeout"]
        self._files = ExitStack()
        self._video: VideoWriter | None = None
        self._bag: Any = None
        self._heard: deque[DecodeStats] = deque()
        self._due = 0.0
        self._callbacks = SingleThreadedExecutor(context=self.context)
        self._callbacks.add_node(self)
        self._spinning = threading.Thread(target=_spin, args=(self._callbacks,), daemon=True)

        self._images = (
            self.create_publisher(CompressedImage, "image/compressed", qos.IMAGE)
            if self._is_compressed
            else self.create_publisher(Image, "image", qos.IMAGE)
        )
        self._wrist_images = self.create_publisher(Image, "wrist_image", qos.IMAGE) if self._values["wrist"] else None
        self._instructions = self.create_publisher(String, "instruction", qos.LATCHED)
        self._statuses = self.create_publisher(EpisodeStatus, "episode_status", qos.LATCHED)
        self._clock_publisher = self.create_publisher(Clock, "/clock", qos.COMMAND) if self._is_realtime else None
        self.create_subscription(EndEffectorCommand, "ee_command", self._on_command, qos.EVERY_COMMAND)
        self.create_subscription(DecodeStats, "decode_stats", self._on_stats, qos.STATS)

    @property
    def _is_realtime(self) -> bool:
        return bool(self._values["mode"] == "realtime")

    @property
    def _is_compressed(self) -> bool:
        return bool(self._values["image_transport"] == "compressed")

    @property
    def _max_steps(self) -> int:
        return int(self._values["max_steps"] or STEP_LIMITS[self._values["suite"]])

    def _is_over(self, frame: Frame) -> bool:
        return frame.success or frame.step >= self._max_steps

    def run(self) -> dict[str, Any]:
        """One episode; its figures are logged, written to the result file and returned.

        Raises:
            SimulationError: the scene cannot be made, or the policy gave no command in time.
        """
        self._spinning.start()
        self._open_files()
        environment = self._create(self._values)
        try:
            return self._episode(environment)
        finally:
            environment.close()

    def _episode(self, environment: Environment) -> dict[str, Any]:
        values, task = self._values, environment.task
        advance = self._realtime_step if self._is_realtime else self._lockstep_step
        frame = environment.reset(values["episode"], values["seed"])
        self._send_instruction(task.language)
        self._film(frame, task)
        self.get_logger().info("waiting for a policy to subscribe to image and to answer")
        # The first answer takes as long as the policy takes to load; the episode's clock stands still meanwhile.
        command: EndEffectorCommand | None = self._ask(frame)
        self._log.start()
        self._due = time.monotonic()
        while not self._is_over(frame):
            frame = advance(environment, frame, command)
            command = None
            self._step = frame.step
            self._film(frame, task)
        self._log.finish()
        time.sleep(0.1)  # the last action's statistics are still on their way
        self._send_status(frame, self._now())
        return self._finish(environment, frame)

    def _open_files(self) -> None:
        writable(self._path("result"))
        if video := writable(self._path("video")):
            self._video = VideoWriter(video, CONTROL_RATE)
            self._files.callback(self._video.close)
        if bag := self._path("bag"):
            from specvla_ros.nodes.bag import BagWriter

            self._bag = BagWriter(bag, self._values["bag_storage"])
            self._files.callback(self._bag.close)

    def _path(self, name: str) -> Path | None:
        """A parameter that names a file; no shell has expanded the ~ in `bag:=~/episode`."""
        return Path(self._values[name]).expanduser() if self._values[name] else None

    def close(self) -> None:
        """Stop the executor and finish the files.

        Raises:
            SpecVLAError: one of them cannot be written; the other is finished all the same.
        """
        self._callbacks.shutdown()
        if self._spinning.is_alive():
            self._spinning.join()
        self._files.close()

    # The two ways to advance: simulation thread.

    def _lockstep_step(self, environment: Environment, frame: Frame, command: EndEffectorCommand | None) -> Frame:
        """Ask for the command of this very frame and make one step with it."""
        command = command or self._ask(frame)
        self._record("/ee_command", nanoseconds(command.header.stamp), command)
        return environment.step(command_values(command))

    def _realtime_step(self, environment: Environment, frame: Frame, command: EndEffectorCommand | None) -> Frame:
        """Show the frame, make one step with the command that holds as it begins, wait until it would have ended.

        Like a robot's controller: what is decoded from this very frame comes too late for the step that begins with it.
        """
        if command is None:
            self._send_image(frame, self._now())
        values = self._held_values(self._box.latest())
        self._record("/ee_command", self._now(), applied_command(values, self._now()))
        frame = environment.step(values)
        self._wait_for_clock()
        return frame

    def _ask(self, frame: Frame) -> EndEffectorCommand:
        """Publish the frame until its command comes; an image or an answer can be lost.

        Each time it gets a new stamp (a policy refuses stale images), and an answer to any of them counts.
        """
        timeout, patience = self._values["policy_timeout"], self._patience
        deadline = time.monotonic() + timeout
        sent: dict[int, float] = {}
        while time.monotonic() < deadline:
            self._require_running()
            if self._images.get_subscription_count() == 0:
                time.sleep(0.01)
                continue
            if not self._step and not sent:
                self._deliver_instruction()
                deadline = time.monotonic() + timeout
            if sent and self._step:
                self._log.counts["images sent again"] += 1
                patience *= 2.0
            stamp = max([self._now(), *sent])
            sent[stamp] = time.monotonic()
            self._send_image(frame, stamp)
            command = self._box.wait_for(sent, min(patience, deadline - time.monotonic()), self.context.ok)
            if command is not None:
                if self._step:
                    # A policy that is slow would decode every frame twice; where images are lost it answers at once.
                    took = time.monotonic() - sent[nanoseconds(command.header.stamp)]
                    self._patience = max(self._values["command_timeout"], 2.0 * took)
                return command
        self._require_running()
        subscribers = "and answers" if sent else "in this ROS_DOMAIN_ID and subscribes to image"
        raise SimulationError(
            f"no command came within {timeout:g} s for step {self._step}; check that a policy node runs {subscribers}, "
            "and what /diagnostics say"
        )

    def _deliver_instruction(self) -> None:
        """Wait until who is there has it: a policy that heard another one before would go by that.

        Raises:
            SimulationError: it does not arrive.
        """
        deadline = time.monotonic() + INSTRUCTION_SECONDS
        while self._instructions.get_subscription_count() == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        deadline = time.monotonic() + DELIVERY_SECONDS
        while not self._instructions.wait_for_all_acked(Duration(seconds=0.1)):
            self._require_running()
            if time.monotonic() > deadline:
                raise SimulationError(
                    f"the instruction did not arrive within {DELIVERY_SECONDS:g} s; end what listens to the topic "
                    "instruction in this ROS_DOMAIN_ID and hangs, or start the policy node again"
                )

    def _held_values(self, command: EndEffectorCommand | None) -> NDArray[np.float64]:
        """The last command while it holds; then no motion, with the gripper as it was."""
        if command is None:
            self._log.counts["steps without command"] += 1
            return np.array([0.0] * 6 + [1.0])
        values, age = command_values(command), self._now() - nanoseconds(command.header.stamp)
        self._log.counts["steps held"] += is_old(age)
        if is_stale(age, self._values["hold_time"]):
            self._log.counts["steps without command"] += 1
            return without_motion(values)
        return values

    def _wait_for_clock(self) -> None:
        """Sleep until the next step is due; a step that comes late is counted and not made up for."""
        self._require_running()
        self._due += 1.0 / (CONTROL_RATE * self._values["real_time_factor"])
        left = self._due - time.monotonic()
        if left > 0:
            time.sleep(left)
        else:
            self._log.counts["overruns"] += 1
            self._due = time.monotonic()

    def _now(self) -> int:
        """Nanoseconds: simulated time by the step in realtime mode, the ROS clock in lockstep."""
        if self._is_realtime:
            return FIRST_SIM_TIME + self._step * STEP_NANOSECONDS
        return int(self.get_clock().now().nanoseconds)

    def _require_running(self) -> None:
        if not self.context.ok():
            raise ExternalShutdownException

    # Messages.

    def _on_command(self, command: EndEffectorCommand) -> None:
        if command.dry_run:
            self.get_logger().warning(
                "the policy's commands are marked dry_run and move nothing: ros2 param set /specvla dry_run false",
                once=True,
            )
            return
        self._log.command_arrived(nanoseconds(command.header.stamp))
        self._box.put(command)

    def _on_stats(self, stats: DecodeStats) -> None:
        self._log.stats_arrived(nanoseconds(stats.header.stamp), stats)
        if self._bag:
            self._heard.append(stats)  # a bag is written by one thread only

    def _send_instruction(self, text: str) -> None:
        message = String(data=text)
        self._instructions.publish(message)
        self._record("/instruction", self._now(), message)

    def _send_image(self, frame: Frame, stamp: int) -> None:
        assert frame.image is not None
        self._log.image_stamped(stamp)
        time_message = Time(nanoseconds=stamp).to_msg()
        if self._clock_publisher:
            self._clock_publisher.publish(Clock(clock=time_message))
        if self._wrist_images and frame.wrist_image is not None:
            wrist = rgb_to_image(frame.wrist_image)
            wrist.header.stamp, wrist.header.frame_id = time_message, "wrist_camera"
            self._wrist_images.publish(wrist)
        message = (
            rgb_to_compressed(frame.image, self._values["jpeg_quality"])
            if self._is_compressed
            else rgb_to_image(frame.image)
        )
        message.header.stamp, message.header.frame_id = time_message, "camera"
        self._images.publish(message)
        self._record("/image/compressed" if self._is_compressed else "/image", stamp, message)
        self._send_status(frame, stamp)

    def _send_status(self, frame: Frame, stamp: int) -> None:
        """Where the episode stands, under the stamp of the image that shows it."""
        status = EpisodeStatus(
            suite=self._values["suite"],
            task=self._values["task"],
            episode=self._values["episode"],
            seed=self._values["seed"],
            step=frame.step,
            max_steps=self._max_steps,
            done=self._is_over(frame),
            success=frame.success,
        )
        status.header.stamp = Time(nanoseconds=stamp).to_msg()
        self._statuses.publish(status)
        self._record("/episode_status", stamp, status)

    def _record(self, topic: str, stamp: int, message: Any) -> None:
        if not self._bag:
            return
        self._bag.write(topic, stamp, message)
        while self._heard:
            stats = self._heard.popleft()
            self._bag.write("/decode_stats", nanoseconds(stats.header.stamp), stats)

    def _film(self, frame: Frame, task: Task) -> None:
        if self._video and frame.image is not None:
            state = "solved" if frame.success else f"step {frame.step}"
            self._video.write(frame.image, f"{task.language} | {state}")

    def _finish(self, environment: Environment, frame: Frame) -> dict[str, Any]:
        values = self._values
        report = {
            **{
                name: values[name]
                for name in ("suite", "task", "episode", "seed", "mode", "image_size", "fast_rendering")
            },
            "instruction": environment.task.language,
            **self._log.report(frame.step, frame.success, environment.state()),
            "video": values["video"],
            "bag": values["bag"],
        }
        outcome = "solved" if frame.success else "not solved"
        self.get_logger().info(
            f"{outcome} after {frame.step} steps, {report['steps_per_second']} steps/s, latency {report['latency_ms']}"
        )
        if path := self._path("result"):
            path.write_text(json.dumps(report, indent=2) + "\n")
        return report


def command_values(command: EndEffectorCommand) -> NDArray[np.float64]:
    """(7,) action values of a command."""
    position, rotation = command.delta_position, command.delta_rotation
    return np.array(
        [position.x, position.y, position.z, rotation.x, rotation.y, rotation.z, command.gripper], dtype=np.float64
    )


def applied_command(values: NDArray[np.float64], stamp: int) -> EndEffectorCommand:
    """What the arm was told at a step, as a command that can be played again."""
    command = EndEffectorCommand(gripper=float(values[6]))
    command.header.stamp = Time(nanoseconds=stamp).to_msg()
    position, rotation = command.delta_position, command.delta_rotation
    position.x, position.y, position.z, rotation.x, rotation.y, rotation.z = map(float, values[:6])
    return command


def create_environment(values: dict[str, Any]) -> Environment:
    """The scene that the parameters ask for."""
    return LiberoEnvironment(
        find_task(values["suite"], values["task"]),
        image_size=values["image_size"],
        wrist=values["wrist"],
        fast_rendering=values["fast_rendering"],
    )


def _spin(executor: SingleThreadedExecutor) -> None:
    """Serve callbacks until the process is told to stop."""
    with suppress(ExternalShutdownException):
        executor.spin()


def main(
    args: Sequence[str] | None = None, create: Callable[[dict[str, Any]], Environment] = create_environment
) -> None:
    """Run one episode and end."""
    run_node("libero_bridge", lambda: LiberoBridge(create), lambda node: node.run(), args)


if __name__ == "__main__":
    main()
