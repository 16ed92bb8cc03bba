"""Whether motion may leave the node: active, enabled, and no emergency stop."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Gate:
    """Each change gives a new gate. An emergency stop outlives its release: it also takes the enabling away."""

    active: bool = False
    enabled: bool = True
    stopped: bool = False

    @property
    def reason(self) -> str:
        """Why nothing may move; empty when it may."""
        if self.stopped:
            return "emergency stop: publish false on estop, then enable the node by its service ~/enable"
        if not self.enabled:
            return "not enabled: call the service ~/enable with data: true"
        return "" if self.active else "inactive: the lifecycle transition activate starts commands"

    def with_stop(self, stopped: bool) -> Gate:
        """The emergency stop is pressed or released."""
        return replace(self, stopped=stopped, enabled=self.enabled and not stopped)

    def with_enabled(self, enabled: bool) -> Gate:
        """Enabled or disabled by the service; under an emergency stop it stays disabled."""
        return replace(self, enabled=enabled and not self.stopped)

    def with_active(self, active: bool) -> Gate:
        """The lifecycle activated or deactivated the node."""
        return replace(self, active=active)
