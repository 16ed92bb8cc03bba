"""The topic estop: pressed, released, and whether anybody is there to press it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from std_msgs.msg import Bool

from specvla_ros.nodes import qos
from specvla_ros.nodes.command_stream import CommandStream
from specvla_ros.nodes.health import ERROR, WARN
from specvla_ros.nodes.reporter import Reporter

if TYPE_CHECKING:
    from rclpy.subscription import MessageInfo  # Kilted has it; before, the same dictionary has no type of its own

TOPIC = "estop"
DISCOVERY = 1.0
"""Seconds that a publisher may be heard before it is seen."""


class EmergencyStop:
    """Closes the stream's gate when it is pressed, and where one is required also while nobody publishes it."""

    def __init__(self, node: Node, stream: CommandStream, reporter: Reporter) -> None:
        self._node = node
        self._logger = node.get_logger()
        self._stream = stream
        self._reporter = reporter
        self._heard = False
        self._present = 0
        self._pressed: dict[bytes, float] = {}
        """When publishers whose last word was true said it, by the monotonic clock. Each has its global identifier, or
        empty bytes where rclpy does not tell it."""
        # Each hears publishers that another does not: what was latched, what is sent again when it is lost, and what
        # is promised nothing. A message that comes twice stops twice.
        silent = SubscriptionEventCallbacks(use_default_callbacks=False)
        subscriptions = [
            node.create_subscription(Bool, TOPIC, self._on_message, qos.every(profile), event_callbacks=silent)
            for profile in (qos.LATCHED, qos.COMMAND, qos.BEST_EFFORT)
        ]
        self._topic = subscriptions[0].topic_name  # as it was remapped

    def look(self, required: bool) -> None:
        """Whether somebody who has spoken is still there; asked again and again."""
        before, self._present = self._present, self._node.count_publishers(self._topic)
        self._heard = self._heard and self._present > 0
        guarded = self._heard or not required
        gate = self._stream.gate
        if required and 0 < self._present < before and gate.active and gate.enabled:
            # Of several buttons one does not do for another: whoever holds it believes that it works.
            reason = self._stream.change_gate(lambda gate: gate.with_enabled(False))
            lost = f"an emergency stop is lost: {self._present} of {before} still publish on estop; {reason}"
            self._reporter.trouble("emergency stop lost", lost)
        if guarded == gate.guarded:
            return
        reason = self._stream.change_gate(lambda gate: gate.with_guard(guarded))
        if guarded:
            self._reporter.warn("emergency stop found", reason or "an emergency stop is there: commands may go out")
        else:
            self._reporter.trouble("no emergency stop", reason)

    def _on_message(self, message: Bool, info: MessageInfo) -> None:
        self._heard = True
        was_stopped = self._stream.gate.stopped
        sender = bytes((info.get("publisher_gid") or {}).get("data", b""))
        if message.data:
            self._pressed[sender] = time.monotonic()
        else:
            self._pressed = self._still_pressed(sender)
        reason = self._stream.change_gate(lambda gate: gate.with_stop(bool(self._pressed)))
        if message.data and not was_stopped:
            self._logger.error(reason)  # each time, whatever was logged just before
            self._reporter.say(ERROR, "emergency stop", reason)
        elif self._pressed and not message.data:
            self._reporter.trouble("still pressed", f"another emergency stop is still pressed; {reason}")
        elif was_stopped and not message.data:
            reason = f"the emergency stop is released; {reason}"
            self._logger.warning(reason)
            self._reporter.say(WARN, "not enabled", reason)

    def _still_pressed(self, released: bytes) -> dict[bytes, float]:
        """Without the one that was released, and without those that are gone: another one's word does for theirs."""
        publishers = self._node.get_publishers_info_by_topic(self._topic) if self._pressed else []
        present, early = {bytes(one.endpoint_gid) for one in publishers}, time.monotonic() - DISCOVERY
        pressed = ((sender, said) for sender, said in self._pressed.items() if sender != released)
        return {sender: said for sender, said in pressed if sender in present or said > early}
