"""From an image to a command, or to a sentence that says why there is none: what the worker thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from rclpy.publisher import Publisher
from visualization_msgs.msg import Marker

from specvla_ros.errors import ImageError
from specvla_ros.msg import DecodeStats
from specvla_ros.nodes.command_stream import CommandStream
from specvla_ros.nodes.health import WARN, Health
from specvla_ros.nodes.inputs import (
    Arrival,
    Instruction,
    Refusal,
    require_frame,
    require_fresh,
    require_instruction,
)
from specvla_ros.nodes.loading import describe
from specvla_ros.nodes.messages import caption, nanoseconds, stats_message
from specvla_ros.nodes.reporter import Reporter
from specvla_ros.nodes.safety import is_finite
from specvla_ros.policy import Action, LooksAhead, Policy, Thresholds


@dataclass(frozen=True, slots=True)
class Progress:
    """How many actions an episode has had, and what the newest one cost."""

    episode: int = 0
    steps: int = 0
    latency_ms: float = 0.0
    accept_length: float = 0.0


class Inference:
    """Judges an image, decodes it, judges it again and hands the action on; no error leaves it.

    Attributes:
        policy: None while there is none.
        progress: of the episode of the newest action; replaced as a whole by the worker's thread.
        instruction: replaced as a whole by the executor's thread; an episode number of its own begins an episode.

    Args:
        now: nanoseconds of the ROS clock.
        stats: publishes DecodeStats, and `captions` the same in words for RViz.
    """

    def __init__(
        self,
        now: Callable[[], int],
        stream: CommandStream,
        stats: Publisher[DecodeStats],
        captions: Publisher[Marker],
        health: Health,
        reporter: Reporter,
    ) -> None:
        self.policy: Policy | None = None
        self.progress = Progress()
        self.instruction = Instruction()
        self._now = now
        self._stream = stream
        self._stats = stats
        self._captions = captions
        self._health = health
        self._reporter = reporter
        self._episode = 0
        self._frame = ""
        self._since = 0.0
        """Images that came before count no longer, by the monotonic clock."""

    def begin_episode(self, text: str, received: int) -> None:
        """What is in force and what is being decoded counts no longer.

        Args:
            received: when the instruction came, in nanoseconds of the ROS clock.
        """
        self.instruction = Instruction(text, self.instruction.episode + 1, received)
        self._stream.begin_episode(self.instruction.episode)

    def begin_again(self) -> None:
        """The same instruction; what waits to be decoded shows the scene as it was, so it counts no longer either."""
        self._since = time.monotonic()
        self.begin_episode(self.instruction.text, self.instruction.received)

    def confirm_instruction(self) -> None:
        """It is still meant, however long ago it came."""
        self.instruction = replace(self.instruction, received=self._now())

    def look(self, arrival: Arrival) -> None:
        """An image that waits: it may be prepared already. What is wrong with it is said when its turn comes."""
        if isinstance(self.policy, LooksAhead) and self.policy.looks_ahead:
            with suppress(Exception):  # this is the executor's thread, which must live on
                self.policy.look(arrival.rgb())

    def work(self, arrival: Arrival) -> None:
        """One image."""
        try:
            self._answer(arrival)
        except Refusal as refusal:
            self._reporter.refuse(refusal.kind, str(refusal), self._stream.gate.level)
        except ImageError as error:
            self._reporter.refuse("images that could not be used", str(error))
        except Exception as error:
            self._health.count("failed actions")
            self._reporter.trouble(type(error).__name__, f"no command: {describe(error)}")

    def _answer(self, arrival: Arrival) -> None:
        policy, instruction, started = self.policy, self.instruction, time.monotonic()
        if policy is None or arrival.seconds < self._since:
            return
        self._health.image_aged(self._age(arrival))
        self._require_fit(arrival, instruction)
        action = self._act(policy, arrival, instruction)
        if not is_finite(action.values):
            self._health.count("actions that were not finite")
            self._reporter.trouble("not finite", f"no command: the action is not finite: {action.values.tolist()}")
            return
        # Decoding took its time: what was fit before it may not be any longer.
        self._require_fit(arrival, instruction)
        self._deliver(action, policy.thresholds, arrival, instruction, started)

    def _require_fit(self, arrival: Arrival, instruction: Instruction) -> None:
        settings = self._stream.settings
        if reason := self._stream.gate.reason:
            raise Refusal("images dropped while nothing may move", reason)
        require_instruction(instruction, self._now(), settings.max_instruction_age)
        require_fresh(self._age(arrival), time.monotonic() - arrival.seconds, settings.max_image_age)
        if instruction.episode == self._episode:
            require_frame(arrival.message.header.frame_id, self._frame)

    def _act(self, policy: Policy, arrival: Arrival, instruction: Instruction) -> Action:
        image = arrival.rgb()
        if instruction.episode != self._episode:
            policy.reset()
            self._episode, self._frame = instruction.episode, arrival.message.header.frame_id
        policy.thresholds = self._stream.settings.thresholds
        return policy.act(image, instruction.text)

    def _deliver(
        self, action: Action, thresholds: Thresholds, arrival: Arrival, instruction: Instruction, started: float
    ) -> None:
        header = arrival.message.header
        if not self._stream.send(action, thresholds, header, instruction.episode):
            self._health.count("actions that came too late")
            return
        latency_ms = 1e3 * (time.monotonic() - arrival.seconds)
        steps = self.progress.steps if self.progress.episode == instruction.episode else 0
        self.progress = Progress(instruction.episode, steps + 1, latency_ms, action.stats.accept_length)
        if action.stats.graph_misses:
            self._health.count("passes without a recorded CUDA graph", action.stats.graph_misses)
        self._health.action_published(latency_ms, action.stats.accept_length, action.stats.rounds)
        age, hold_time, gate = self._age(arrival), self._stream.settings.hold_time, self._stream.gate
        if gate.reason:  # it closed meanwhile, and its reason must not be talked over
            self._reporter.say(gate.level, "not enabled", gate.reason)
        elif age > hold_time:
            self._health.count("overruns: actions decoded after hold_time")
            self._reporter.warn(
                "overrun",
                f"the arm does not move: the action came {age:.2f} s after its image's stamp, and hold_time is "
                f"{hold_time:g} s; raise it, or decode faster (draft, threshold)",
            )
        elif -age > hold_time:
            self._reporter.warn(
                "stamps ahead",
                f"the arm does not move: the image's stamp is {-age:.2f} s ahead, and hold_time is {hold_time:g} s; "
                "check the camera's clock",
            )
        elif self._stream.forbids_motion():
            self._reporter.refuse("commands kept at rest without a pose", self._stream.workspace_trouble())
        elif self._stream.settings.dry_run:
            self._reporter.say(WARN, "dry run", "dry run: commands are published, marked, and nothing moves by them")
        self._reporter.publish_status()
        stats = stats_message(action, header, 1e3 * (started - arrival.seconds), latency_ms)
        self._stats.publish(stats)
        self._captions.publish(caption(stats, thresholds, self._stream.settings.twist_frame))

    def _age(self, arrival: Arrival) -> float:
        """Seconds since an image's stamp."""
        return (self._now() - nanoseconds(arrival.message.header.stamp)) / 1e9
