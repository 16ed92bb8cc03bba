"""/specvla: camera image and instruction in, end-effector command out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from specvla_ros.errors import ConfigurationError, ImageError, SpecVLAError
from specvla_ros.msg import DecodeStats, EndEffectorCommand
from specvla_ros.nodes import qos
from specvla_ros.nodes.conversion import compressed_to_rgb, image_to_rgb
from specvla_ros.nodes.health import ERROR, WARN, Health
from specvla_ros.nodes.parameters import declare
from specvla_ros.nodes.policy_parameters import PARAMETERS, combine_thresholds
from specvla_ros.nodes.run import run_node
from specvla_ros.nodes.throttle import Throttle
from specvla_ros.nodes.worker import NewestWorker
from specvla_ros.policy import Action, Policy, Thresholds

LoadPolicy = Callable[[dict[str, Any]], Policy]
WARNING_PERIOD = 5.0
"""Seconds between two log lines about the same kind of trouble."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An image message, and when it came by the monotonic clock."""

    message: Image | CompressedImage
    seconds: float


@dataclass(frozen=True, slots=True)
class Instruction:
    """What to do, numbered: every message on the topic starts a new episode."""

    text: str = ""
    number: int = 0


class PolicyNode(Node):
    """Decodes the newest image in one worker thread; callbacks only leave notes and never wait.

    Whatever goes wrong with an image, an instruction or the model, the node lives on, publishes no command for it and
    says so in the log and in diagnostics.
    """

    def __init__(self, load: LoadPolicy) -> None:
        super().__init__("specvla")
        values = declare(self, PARAMETERS)
        self._values = values
        self._thresholds = combine_thresholds(values["threshold"], values["thresholds"])
        self._load = load
        self._policy: Policy | None = None
        self._instruction = Instruction()
        self._episode = 0
        self._sequence = 0
        self._health = Health("loading the policy")
        self._throttle = Throttle(WARNING_PERIOD)
        self._worker: NewestWorker[Arrival] = NewestWorker(self._load_policy, self._handle)

        # Publishers first: whoever sees the subscription to images sends one and waits for its command.
        self._commands = self.create_publisher(EndEffectorCommand, "ee_command", qos.COMMAND)
        self._twists = self.create_publisher(TwistStamped, "delta_twist", qos.COMMAND)
        self._stats = self.create_publisher(DecodeStats, "decode_stats", qos.STATS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATS)
        self.create_subscription(String, "instruction", self._on_instruction, qos.LATCHED)
        if values["image_transport"] == "raw":
            self.create_subscription(Image, "image", self._on_image, qos.IMAGE)
        else:
            self.create_subscription(CompressedImage, "image/compressed", self._on_image, qos.IMAGE)
        self.add_on_set_parameters_callback(self._on_parameters)
        # By the steady clock: diagnostics matter most when nothing drives simulated time.
        self.create_timer(1.0, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._worker.start()

    def close(self) -> bool:
        """Let the action in work end; publish nothing more. False when it does not end in time."""
        return self._worker.stop()

    # Callbacks: executor thread.

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._health.image_arrived()
        if self._worker.submit(Arrival(message, time.monotonic())):
            self._health.count("images superseded by a newer one")

    def _on_instruction(self, message: String) -> None:
        self._instruction = Instruction(message.data, self._instruction.number + 1)
        self.get_logger().info(f"instruction: {message.data!r}")

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        changed = {parameter.name: parameter.value for parameter in parameters}
        try:
            self._thresholds = combine_thresholds(
                changed.get("threshold", self.get_parameter("threshold").value),
                changed.get("thresholds", self.get_parameter("thresholds").value),
            )
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        extra = {"thresholds [bins]": " ".join(map(str, self._thresholds)), "draft": self._values["draft"]}
        self._diagnostics.publish(self._health.message("specvla", self.get_clock().now().to_msg(), extra))

    # Inference: worker thread.

    def _load_policy(self) -> None:
        started = time.monotonic()
        self.get_logger().info("loading the policy")
        try:
            self._policy = self._load(self._values)
        except Exception as error:
            self._trouble("loading", f"the policy was not loaded, so there will be no command: {describe(error)}")
            return
        self._health.say(WARN, "no image has come yet on the topic image")
        if not self.context.ok():
            return
        self.get_logger().info(f"policy loaded in {time.monotonic() - started:.1f} s")

    def _handle(self, arrival: Arrival) -> None:
        """One image to one command, or to a sentence that says why not; no error leaves the worker."""
        try:
            self._answer(arrival)
        except ImageError as error:
            self._refuse("images that could not be used", str(error))
        except Exception as error:
            if self.context.ok():
                self._health.count("failed actions")
                self._trouble(type(error).__name__, f"no command: {describe(error)}")

    def _answer(self, arrival: Arrival) -> None:
        policy, instruction, started = self._policy, self._instruction, time.monotonic()
        if policy is None:
            self._health.count("images dropped without a policy")
        elif not instruction.text.strip():
            self._refuse(
                "images dropped without an instruction", "no instruction: publish one on the topic instruction"
            )
        elif self._is_fresh(arrival):
            action = self._act(policy, arrival, instruction)
            self._deliver(action, policy.thresholds, arrival, instruction, started)

    def _act(self, policy: Policy, arrival: Arrival, instruction: Instruction) -> Action:
        message = arrival.message
        image = compressed_to_rgb(message) if isinstance(message, CompressedImage) else image_to_rgb(message)
        if instruction.number != self._episode:
            policy.reset()
            self._episode = instruction.number
        policy.thresholds = self._thresholds
        return policy.act(image, instruction.text)

    def _deliver(
        self, action: Action, thresholds: Thresholds, arrival: Arrival, instruction: Instruction, started: float
    ) -> None:
        """Publish an action unless it is not finite, has become stale, or answers an earlier instruction."""
        if not np.isfinite(action.values).all():
            self._health.count("actions that were not finite")
            self._trouble("not finite", f"no command: the action is not finite: {action.values.tolist()}")
            return
        if instruction is not self._instruction:
            self._health.count("actions for an instruction that had changed")
            return
        if not self._is_fresh(arrival) or not self.context.ok():
            return
        self._sequence += 1
        header = arrival.message.header
        self._commands.publish(self._command(action, thresholds, header))
        self._twists.publish(self._twist(action))
        finished = time.monotonic()
        latency_ms = 1e3 * (finished - arrival.seconds)
        self._health.action_published(latency_ms, action.stats.accept_length)
        self._stats.publish(stats_message(action, header, 1e3 * (started - arrival.seconds), latency_ms))

    def _is_fresh(self, arrival: Arrival) -> bool:
        limit = self._values["max_image_age"]
        stamp = Time.from_msg(arrival.message.header.stamp, clock_type=self.get_clock().clock_type)
        age = (self.get_clock().now() - stamp).nanoseconds / 1e9
        if limit == 0.0 or abs(age) <= limit:
            return True
        self._refuse(
            "stale images",
            f"stale image: its stamp is {age:.3f} s old, {time.monotonic() - arrival.seconds:.3f} s of it in this "
            f"node; the limit max_image_age is {limit} s: raise it for a slow model, else check the camera's clock and "
            "that use_sim_time is the same everywhere",
        )
        return False

    def _command(self, action: Action, thresholds: Thresholds, header: Any) -> EndEffectorCommand:
        command = EndEffectorCommand(header=header, sequence=self._sequence, gripper=float(action.values[6]))
        position, rotation = command.delta_position, command.delta_rotation
        position.x, position.y, position.z = map(float, action.values[:3])
        rotation.x, rotation.y, rotation.z = map(float, action.values[3:6])
        command.tokens = list(action.tokens)
        command.thresholds = list(thresholds)
        return command

    def _twist(self, action: Action) -> TwistStamped:
        twist = TwistStamped()
        # A servo controller counts its time-out from this stamp, so it is the command's time, not the image's.
        twist.header.stamp = self.get_clock().now().to_msg()
        twist.header.frame_id = self._values["twist_frame"]
        linear, angular = twist.twist.linear, twist.twist.angular
        linear.x, linear.y, linear.z = (float(v) * self._values["linear_scale"] for v in action.values[:3])
        angular.x, angular.y, angular.z = (float(v) * self._values["angular_scale"] for v in action.values[3:6])
        return twist

    def _refuse(self, kind: str, sentence: str) -> None:
        """An input that gives no command."""
        self._health.count(kind)
        self._health.say(WARN, sentence)
        if self._throttle.is_due(kind):
            self.get_logger().warning(sentence)

    def _trouble(self, kind: str, sentence: str) -> None:
        """Something is broken."""
        self._health.say(ERROR, sentence)
        if self._throttle.is_due(kind):
            self.get_logger().error(sentence)


def stats_message(action: Action, header: Any, queue_ms: float, total_ms: float) -> DecodeStats:
    """An action's statistics as a message."""
    stats, times = action.stats, action.stats.milliseconds
    return DecodeStats(
        header=header,
        tokens=list(action.tokens),
        deviations=list(stats.deviations),
        accepted=list(stats.accepted),
        rounds=stats.rounds,
        target_forwards=stats.forwards,
        prepare_ms=times.get("prepare", 0.0),
        vision_ms=times.get("vision", 0.0),
        prefill_ms=times.get("prefill", 0.0),
        draft_ms=times.get("draft", 0.0),
        verify_ms=times.get("verify", 0.0),
        decode_ms=times.get("total", 0.0),
        queue_ms=queue_ms,
        total_ms=total_ms,
    )


def describe(error: Exception) -> str:
    """Our own errors are sentences; another's type is worth knowing."""
    return str(error) if isinstance(error, SpecVLAError) else f"{type(error).__name__}: {error}"


def load_from_parameters(values: dict[str, Any]) -> Policy:
    """The policy that the parameters ask for."""
    if values["policy"] == "fake":
        from specvla_ros.fake_policy import FakePolicy

        return FakePolicy()
    import torch

    from specvla_ros.runtime import load_policy
    from specvla_ros.speculative.build import TreeConfig

    torch.set_num_threads(values["cpu_threads"])
    return load_policy(
        values["checkpoint"] or None,
        draft=values["draft"],
        device=values["device"],
        dtype=values["dtype"],
        unnorm_key=values["unnorm_key"] or None,
        preparation=values["image_preparation"],
        tree=TreeConfig(
            values["tree_nodes"], values["tree_depth"], values["tree_top_k"], legacy=values["legacy_draft"]
        ),
    )


def main(args: Sequence[str] | None = None, load: LoadPolicy = load_from_parameters) -> None:
    """Run the node until it is told to stop."""
    run_node("specvla", lambda: PolicyNode(load), rclpy.spin, args)


if __name__ == "__main__":
    main()
