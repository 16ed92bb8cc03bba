"""Whether motion may leave the node: active, enabled, no emergency stop, and nothing being changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from specvla_ros.nodes.health import ERROR, WARN


@dataclass(frozen=True, slots=True)
class Gate:
    """Each change gives a new gate.

    Attributes:
        active: by the lifecycle.
        enabled: by the service; an emergency stop outlives its release: it also takes the enabling away.
        stopped: the emergency stop is pressed.
        guarded: somebody is there who can press it, as far as that is required.
        changing: the policy is being replaced.
    """

    active: bool = False
    enabled: bool = True
    stopped: bool = False
    guarded: bool = True
    changing: bool = False

    @property
    def reason(self) -> str:
        """Why nothing may move; empty when it may."""
        if self.stopped:
            return "emergency stop: publish false on estop, then enable the node by its service ~/enable"
        if not self.guarded:
            return "no emergency stop: estop_required is true, and nobody has published on estop"
        if not self.enabled:
            return "not enabled: call the service ~/enable with data: true"
        if self.changing:
            return "the draft is being changed"
        return "" if self.active else "inactive: the lifecycle transition activate starts commands"

    @property
    def level(self) -> bytes:
        """Of a DiagnosticStatus that tells the reason: an emergency stop that is pressed or missing is an error."""
        return ERROR if self.stopped or not self.guarded else WARN

    def with_stop(self, stopped: bool) -> Gate:
        """The emergency stop is pressed or released."""
        return replace(self, stopped=stopped, enabled=self.enabled and not stopped)

    def with_guard(self, guarded: bool) -> Gate:
        """Whoever can press the emergency stop has come, or was lost: in motion that, too, takes the enabling away."""
        was_lost = self.active and self.guarded and not guarded
        return replace(self, guarded=guarded, enabled=self.enabled and not was_lost)

    def with_enabled(self, enabled: bool) -> Gate:
        """Enabled or disabled by the service; under an emergency stop it stays disabled."""
        return replace(self, enabled=enabled and not self.stopped)

    def with_active(self, active: bool) -> Gate:
        """The lifecycle activated or deactivated the node."""
        return replace(self, active=active)

    def with_change(self, changing: bool) -> Gate:
        """The policy begins or ends to be replaced."""
        return replace(self, changing=changing)
