"""The life of a node that loads something heavy: configure, activate, deactivate, cleanup; or all by itself."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from specvla_ros.nodes.worker import NewestWorker

T = TypeVar("T")

POLL = 0.05
"""Seconds between two looks at whether the worker has loaded."""
SETTLING = 0.5
"""Seconds that a node which starts by itself leaves for discovery before it activates: what is latched, an emergency
stop above all, has then been heard where discovery is as quick as it mostly is (4 to 200 ms)."""
SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class LoadedNode(LifecycleNode, ABC, Generic[T]):
    """Loads in its worker thread, which then works on the newest item submitted; subclasses say what all that is.

    With `start_by_itself` it loads, configures and activates without being told, and answers parameters meanwhile.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.worker: NewestWorker[T] | None = None
        # By the steady clock: simulated time may not have begun.
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)

    @abstractmethod
    def load(self) -> None:
        """Worker thread: load everything; answer for errors."""

    @abstractmethod
    def work(self, item: T) -> None:
        """Worker thread: one item; answer for errors."""

    @property
    @abstractmethod
    def is_loaded(self) -> bool:
        """Whether `load` has succeeded."""

    @abstractmethod
    def unload(self) -> None:
        """Free what `load` has loaded; the worker has ended."""

    @abstractmethod
    def start_motion(self) -> None:
        """Commands may go out from now on."""

    @abstractmethod
    def stop_motion(self) -> None:
        """One command without motion, then none. May be called twice, and after a `start_motion` that failed."""

    @abstractmethod
    def while_loading(self, seconds: float) -> None:
        """Called again and again until `load` has ended; it has taken so many seconds."""

    @abstractmethod
    def while_blocked(self) -> None:
        """Called again and again while `configure` waits, and with it the executor."""

    def start_by_itself(self) -> None:
        """Load, and once that is done configure and activate."""
        self._start_loading()
        started = time.monotonic()
        timer = self.create_timer(POLL, lambda: look(), clock=self.steady_clock)

        def look() -> None:
            worker = self.worker
            seconds = time.monotonic() - started
            if worker is not None and not worker.wait_until_set_up(0.0):
                self.while_loading(seconds)
                return
            if seconds < SETTLING:
                return
            self.destroy_timer(timer)
            # A lifecycle manager may have been faster.
            is_untouched = worker is not None and self._state_machine.current_state[1] == "unconfigured"
            if is_untouched and self.trigger_configure() == SUCCESS:
                self.trigger_activate()

    def close(self) -> bool:
        """The process ends: let the action in work end. False when it does not end in time."""
        return self.worker is None or self.worker.stop()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load, however long it takes; FAILURE when that fails."""
        self._start_loading()
        assert self.worker is not None
        started = time.monotonic()
        while not self.worker.wait_until_set_up(POLL):
            if not self.context.ok():
                return FAILURE
            self.while_loading(time.monotonic() - started)
            self.while_blocked()
        if not self.is_loaded:
            self._end_worker()
            return FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Commands may go out; ERROR, and with it `on_error`, when they cannot."""
        result = super().on_activate(state)
        if result == SUCCESS:
            try:
                self.start_motion()
            except Exception as error:  # rclpy would say nothing about it
                self.get_logger().error(f"not activated: {type(error).__name__}: {error}")
                return ERROR
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """One command without motion, then none."""
        self.stop_motion()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what was loaded."""
        if not self._end_worker():
            return ERROR
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state: at rest, and everything freed."""
        self.stop_motion()
        self._end_worker()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Whatever went wrong in a transition: at rest, everything freed, and it may be configured again."""
        self.stop_motion()
        self._end_worker()
        super().on_deactivate(state)
        return super().on_error(state)

    def _start_loading(self) -> None:
        if self.worker is None:
            self.worker = NewestWorker(self.load, self.work)
            self.worker.start()

    def _end_worker(self) -> bool:
        """End the thread and free what it used; False when it is still busy after some seconds."""
        worker, self.worker = self.worker, None
        ended = worker is None or worker.stop()
        self.unload()
        return ended
