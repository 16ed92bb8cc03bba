"""/specvla: camera image and instruction in, end-effector command out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import SetBool
from visualization_msgs.msg import Marker

from specvla_ros.errors import ConfigurationError
from specvla_ros.gpu_memory import free_memory, gpu_memory
from specvla_ros.msg import DecodeStats, EndEffectorCommand
from specvla_ros.nodes import qos
from specvla_ros.nodes.clock_watch import ClockWatch
from specvla_ros.nodes.command_stream import CommandStream
from specvla_ros.nodes.emergency_stop import EmergencyStop
from specvla_ros.nodes.health import SILENCE, WARN, Health
from specvla_ros.nodes.inference import Inference
from specvla_ros.nodes.inputs import LONGEST_INSTRUCTION, Arrival
from specvla_ros.nodes.instruction_server import InstructionServer
from specvla_ros.nodes.lifecycle import LoadedNode
from specvla_ros.nodes.loading import describe, load_from_parameters, with_draft
from specvla_ros.nodes.messages import nanoseconds
from specvla_ros.nodes.parameters import declare
from specvla_ros.nodes.policy_parameters import PARAMETERS
from specvla_ros.nodes.reporter import Reporter
from specvla_ros.nodes.run import run_node, spin
from specvla_ros.nodes.settings import Settings
from specvla_ros.nodes.throttle import Throttle
from specvla_ros.policy import Policy

if TYPE_CHECKING:
    from rclpy.subscription import MessageInfo  # Kilted has it; before, the same dictionary has no type of its own

LoadPolicy = Callable[[dict[str, Any]], Policy]
LAST_WORD = Duration(seconds=0.5)
"""How long the end of the process waits for the controllers to hear the stop."""
INSTRUCTIONS = 16
"""So many messages are remembered to know one that comes a second time by the other subscription."""
CHANGED = 0.3
"""Seconds after a draft was changed in which nothing moves: the executor hears what it missed, an e-stop above all."""
PROGRESS = 5.0
"""Seconds between two log lines while the policy loads."""
AT_CONFIGURE = frozenset(spec.name for spec in PARAMETERS if not spec.live)
AT_START = frozenset({"autostart", "enabled_at_start"})


class PolicyNode(LoadedNode[Arrival]):
    """Decodes the newest image in one worker thread; callbacks only leave notes. One of them waits: another draft is
    loaded in the executor's thread, which hears nothing meanwhile, so that nothing moves until it has caught up.

    Whatever goes wrong with an image, an instruction or the model, the node lives on, brings the arm to rest and says
    so in the log, in diagnostics and on ~/status.
    """

    def __init__(self, load: LoadPolicy) -> None:
        super().__init__("specvla")
        # Of two arms each has its node in a namespace of its own.
        self._full_name = self.get_fully_qualified_name()
        self._values = declare(self, PARAMETERS, read_only=False)
        self._load = load
        self._second, self._seconds = Throttle(1.0), Throttle(PROGRESS)
        self._clock_watch = ClockWatch()
        self._instructed: deque[int] = deque(maxlen=INSTRUCTIONS)
        self._others = 0
        self._camera: Any = None
        self._command_timer: Any = None
        self._reopening: Any = None

        self._health = Health("unconfigured: the lifecycle transition configure loads the policy")
        self._commands = self.create_lifecycle_publisher(EndEffectorCommand, "ee_command", qos.COMMAND)
        self._twists = self.create_lifecycle_publisher(TwistStamped, "delta_twist", qos.COMMAND)
        self._grippers = self.create_lifecycle_publisher(Float64MultiArray, "gripper_position", qos.COMMAND)
        self._stream = CommandStream(
            self._now,
            self._commands,
            self._twists,
            self._grippers,
            Settings.from_values(self._values),
            self._health.count,
        )
        statuses = self.create_publisher(DiagnosticStatus, "~/status", qos.LATCHED)
        self._reporter = Reporter(self._full_name[1:], self._health, self.get_logger(), statuses, self._stream.rest)
        stats = self.create_lifecycle_publisher(DecodeStats, "decode_stats", qos.STATS)
        captions = self.create_lifecycle_publisher(Marker, "~/caption", qos.STATS)
        self._inference = Inference(self._now, self._stream, stats, captions, self._health, self._reporter)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATS)
        self.create_subscription(PoseStamped, "ee_pose", self._on_pose, qos.BEST_EFFORT)
        # A latched subscription does not hear a volatile publisher, and a volatile one misses what was said before it.
        # The other one hears what this one cannot, or complains itself.
        silent = SubscriptionEventCallbacks(use_default_callbacks=False)
        for profile, events in ((qos.LATCHED, silent), (qos.COMMAND, None)):
            self.create_subscription(String, "instruction", self._on_instruction, profile, event_callbacks=events)
        self._emergency_stop = EmergencyStop(self, self._stream, self._reporter)
        self._stream.change_gate(lambda gate: gate.with_enabled(self._values["enabled_at_start"]))
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._goals = InstructionServer(self, self._inference, self._stream, self._now, self.steady_clock)
        self.add_on_set_parameters_callback(self._on_parameters)
        # By the steady clock: diagnostics matter most when nothing drives simulated time.
        self.create_timer(1.0, self._publish_diagnostics, clock=self.steady_clock)
        self._reporter.publish_status()
        if self._values["autostart"]:
            self.start_by_itself()

    # The node's life: executor thread, `load` and `work` in the worker thread.

    @property
    def is_loaded(self) -> bool:
        """Whether there is a policy to ask."""
        return self._inference.policy is not None

    def load(self) -> None:
        """Load and warm up the policy that the parameters ask for."""
        started = time.monotonic()
        self.get_logger().info("loading the policy")
        self._reporter.say(WARN, "loading", "loading the policy")
        try:
            self._inference.policy = self._load(dict(self._values))
        except Exception as error:
            reason = f"the policy was not loaded, so there will be no command: {describe(error)}"
            self._reporter.trouble("not loaded", reason)
            return
        self._reporter.say(WARN, "loaded", "inactive: the lifecycle transition activate starts commands")
        self.get_logger().info(f"policy loaded in {time.monotonic() - started:.1f} s")

    def work(self, item: Arrival) -> None:
        """One image."""
        self._inference.work(item)

    def while_loading(self, seconds: float) -> None:
        """A line in the log now and then."""
        if seconds >= PROGRESS and self._seconds.is_due("progress"):
            self.get_logger().info(f"still loading the policy, for {seconds:.0f} s now")

    def while_blocked(self) -> None:
        """The diagnostics' timer is blocked too."""
        if self._second.is_due("diagnostics"):
            self._publish_diagnostics()

    def unload(self) -> None:
        """Free the policy and its GPU memory."""
        was_loaded, self._inference.policy = self.is_loaded, None
        free_memory()
        if was_loaded:
            self._reporter.say(WARN, "unconfigured", "unconfigured: the policy was freed")

    def start_motion(self) -> None:
        """Listen to the camera, and repeat commands by a timer of the steady clock: simulated time may stand still."""
        self._begin_again("the node was activated anew")
        kind, topic = (
            (Image, "image") if self._values["image_transport"] == "raw" else (CompressedImage, "image/compressed")
        )
        self._reporter.say(WARN, "no image", f"no image has come yet on the topic {self.resolve_topic_name(topic)}")
        self._announce_dry_run()
        self._emergency_stop.look(self._values["estop_required"])
        self._stream.change_gate(lambda gate: gate.with_active(True))
        self._command_timer = self.create_timer(1.0 / self._values["command_rate"], self._tick, clock=self.steady_clock)
        # The subscription comes last: whoever sees it sends an image and waits for its command.
        profile = qos.RELIABLE_IMAGE if self._values["image_reliability"] == "reliable" else qos.IMAGE
        self._camera = self.create_subscription(kind, topic, self._on_image, profile)

    def stop_motion(self) -> None:
        """One command without motion, then none; the camera is not listened to."""
        was_active = self._stream.gate.active
        self._stream.change_gate(lambda gate: gate.with_active(False))
        # Each by itself: an activation may have failed between them.
        if self._command_timer is not None:
            self.destroy_timer(self._command_timer)
        if self._camera is not None:
            self.destroy_subscription(self._camera)
        self._camera = self._command_timer = None
        if was_active:
            self._reporter.say(self._stream.gate.level, "inactive", self._stream.gate.reason)

    def close(self) -> bool:
        """The process ends, and with it the shared memory in which the last word lies: wait until it has been read."""
        self.stop_motion()
        self._goals.destroy()
        for publisher in (self._commands, self._twists, self._grippers):
            publisher.wait_for_all_acked(LAST_WORD)
        return super().close()

    # Callbacks: executor thread.

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._health.image_arrived()
        self._look_at_clock()
        if self.worker is None:
            return
        arrival, busy = Arrival(message, time.monotonic()), self.worker.busy
        if self.worker.submit(arrival):
            self._health.count("images superseded by a newer one")
        if busy:
            self._inference.look(arrival)

    def _on_pose(self, message: PoseStamped) -> None:
        self._health.pose_arrived((self._now() - nanoseconds(message.header.stamp)) / 1e9)
        self._stream.pose_arrived(message)

    def _on_instruction(self, message: String, info: MessageInfo) -> None:
        # A latched publisher is heard by both subscriptions, and each message begins one episode.
        published = info["source_timestamp"]
        if published and published in self._instructed:  # 0 where the middleware does not say
            return
        self._instructed.append(published)
        self._goals.abort("an instruction on the topic took its place")
        # What was latched may have been said long before this node began to listen.
        old = max(0, time.time_ns() - published) if published else 0
        self._inference.begin_episode(message.data, self._now() - old)
        shown = message.data[:LONGEST_INSTRUCTION]
        self.get_logger().info(f"instruction: {shown!r}{' ...' if shown != message.data else ''}")

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data and not self._stream.gate.enabled:
            # However short the stop was: what is being decoded, or waits for it, shows the scene as it was.
            self._begin_again("the node was disabled meanwhile")
        reason = self._stream.change_gate(lambda gate: gate.with_enabled(request.data))
        response.success = self._stream.gate.enabled == request.data
        response.message = reason or "enabled: the next image's command goes out"
        self.get_logger().info(response.message)
        self._reporter.say(self._stream.gate.level, "not enabled" if reason else "enabled", response.message)
        return response

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """All of them, or none."""
        changed = {parameter.name: parameter.value for parameter in parameters if parameter.name in self._values}
        if reason := self._too_late(changed):
            return SetParametersResult(successful=False, reason=reason)
        values = {**self._values, **changed}
        try:
            settings = Settings.from_values(values)
            if values["draft"] != self._values["draft"] and self.worker is not None:
                self._change_draft(values)
        except Exception as error:  # a draft's files can hold anything, and the node must live on
            return SetParametersResult(successful=False, reason=describe(error))
        self._values = values
        self._stream.change_settings(settings)
        if "dry_run" in changed:
            self._announce_dry_run()
        return SetParametersResult(successful=True)

    def _too_late(self, changed: dict[str, Any]) -> str:
        """Why these cannot change now; a dump that is loaded again names all of them as they are."""
        late = {name for name in AT_CONFIGURE & changed.keys() if changed[name] != self._values[name]}
        if started := late & AT_START:
            return f"{', '.join(sorted(started))}: read once, as the process starts: start it with another value"
        if late and self.worker is not None:
            command = f"ros2 lifecycle set {self._full_name} cleanup"
            return f"{', '.join(sorted(late))}: read-only while configured; first: {command}"
        return ""

    def _change_draft(self, values: dict[str, Any]) -> None:
        """The gate is closed meanwhile, and what is being decoded will not count."""
        policy = self._inference.policy
        if policy is None:
            raise ConfigurationError("draft: the policy is still loading; set it again when that is done")
        self._stream.change_gate(lambda gate: gate.with_change(True))
        self._begin_again("another draft was chosen")
        try:
            self._inference.policy = with_draft(policy, values)
        finally:
            del policy  # or its memory could not be given back
            free_memory()
            self._reopen_soon()

    def _reopen_soon(self) -> None:
        """By the steady clock, and counted from the last of several changes; what has come until then is heard before.

        The timer of the change before would be overdue after this one, and timers come before messages.
        """

        def reopen() -> None:
            self.destroy_timer(self._reopening)
            self._reopening = None
            self._stream.change_gate(lambda gate: gate.with_change(False))

        if self._reopening is not None:
            self.destroy_timer(self._reopening)
        self._reopening = self.create_timer(CHANGED, reopen, clock=self.steady_clock)

    def _begin_again(self, reason: str) -> None:
        """The same instruction, a new episode; a goal that is still followed was meant for the one before."""
        self._goals.abort(reason)
        self._inference.begin_again()

    def _tick(self) -> None:
        """So many times a second while active."""
        self._look_at_clock()
        self._emergency_stop.look(self._values["estop_required"])
        if not self._stream.repeat():
            self._reporter.refuse(
                "standstills of the clock",
                "the clock stands still: check who publishes /clock; the next image's command moves the arm again",
            )

    def _look_at_clock(self) -> None:
        if self._clock_watch.went_back(self._now()):
            self._goals.abort("the clock went back")
            self._inference.begin_episode(self._inference.instruction.text, self._now())
            self._reporter.refuse("backward jumps of the clock", "the clock went back: the episode begins again")

    def _publish_diagnostics(self) -> None:
        if not self._stream.gate.reason and (silence := self._health.silence) > SILENCE:
            self._reporter.warn("no image", f"no image for {silence:.0f} s")
        settings, instruction = self._stream.settings, self._inference.instruction
        extra = {
            "lifecycle state": self._state_machine.current_state[1],
            "threshold [bins]": str(self._values["threshold"]),
            "thresholds [bins]": " ".join(map(str, settings.thresholds)),
            "draft": self._values["draft"],
            "dry run": str(settings.dry_run).lower(),
            "motion": self._stream.gate.reason or "allowed",
            "workspace box": self._stream.workspace_trouble() or "applied",
            "other publishers of commands": str(self._look_for_others()),
            **(gpu_memory() if self.is_loaded else {}),
        }
        if instruction.text:
            extra["instruction age [s]"] = f"{(self._now() - instruction.received) / 1e9:.1f}"
        self._diagnostics.publish(self._health.message(self._full_name[1:], self.get_clock().now().to_msg(), extra))

    def _look_for_others(self) -> int:
        """How many else publish on ee_command, such as a node that was forgotten: the arm would follow all of them."""
        topic = self._commands.topic_name
        others = self.count_publishers(topic) - 1
        if others > self._others:
            self.get_logger().warning(f"{topic} has {others} other publishers: end what else commands the arm")
        self._others = others
        return others

    def _now(self) -> int:
        """Nanoseconds of the ROS clock."""
        return int(self.get_clock().now().nanoseconds)

    def _announce_dry_run(self) -> None:
        if self._stream.settings.dry_run:
            self.get_logger().warning(
                "dry_run is on: commands are marked and delta_twist is not sent, so the arm does not move. When "
                f"you have seen that they make sense: ros2 param set {self._full_name} dry_run false"
            )


def main(args: Sequence[str] | None = None, load: LoadPolicy = load_from_parameters) -> None:
    """Run the node until it is told to stop."""
    run_node("specvla", lambda: PolicyNode(load), spin, args, speaks_last=True)


if __name__ == "__main__":
    main()
