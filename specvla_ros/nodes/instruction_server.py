"""~/follow_instruction: one instruction as a ROS action, beside the plain topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock
from rclpy.node import Node
from rclpy.task import Future

from specvla_ros.action import FollowInstruction
from specvla_ros.nodes.command_stream import CommandStream
from specvla_ros.nodes.inference import Inference, Progress
from specvla_ros.nodes.inputs import Instruction, Refusal, require_instruction

PERIOD = 0.05
"""Seconds between two looks at the goal that is followed: whether it has ended, and what to tell its client."""


class InstructionServer:
    """Follows one goal at a time, in the executor's thread; it only sets the instruction and watches what follows.

    A goal is refused while nothing may move. It is aborted when the gate closes or another instruction takes the arm,
    be it a newer goal's or the topic's; an arm that rested never goes on with an old goal by itself.

    Args:
        now: nanoseconds of the ROS clock.
        steady_clock: looks at the goal even where simulated time stands still.
    """

    def __init__(
        self, node: Node, inference: Inference, stream: CommandStream, now: Callable[[], int], steady_clock: Clock
    ) -> None:
        self._inference = inference
        self._stream = stream
        self._now = now
        self._logger = node.get_logger()
        self._goal: ServerGoalHandle | None = None
        self._ended: Future[FollowInstruction.Result] = Future()
        self._episode = 0
        self._started = 0
        self._told = Progress()
        self._server = ActionServer(
            node,
            FollowInstruction,
            "~/follow_instruction",
            execute_callback=self._follow,
            goal_callback=self._judge,
            cancel_callback=self._on_cancel,
        )
        node.create_timer(PERIOD, self._look, clock=steady_clock)

    def abort(self, reason: str) -> None:
        """Something else takes the arm: the goal, if one is followed, ends and its instruction with it."""
        if self._goal is not None:
            self._end(self._goal.abort, reason)

    def destroy(self) -> None:
        """Before the node's own end."""
        self._server.destroy()

    def _judge(self, request: FollowInstruction.Goal) -> GoalResponse:
        reason = self._stream.gate.reason
        try:
            require_instruction(Instruction(request.instruction), now=0, limit=0.0)
        except Refusal as refusal:
            reason = reason or str(refusal)
        if not 0.0 <= request.time_limit < float("inf"):
            reason = reason or f"time_limit is {request.time_limit} s; expected seconds, or 0 for no limit"
        if reason:
            self._logger.warning(f"goal refused: {reason}")
        return GoalResponse.REJECT if reason else GoalResponse.ACCEPT

    async def _follow(self, goal: ServerGoalHandle) -> FollowInstruction.Result:
        self.abort("a newer goal took its place")
        self._goal, self._ended, self._told, self._started = goal, Future(), Progress(), self._now()
        # A goal that was cancelled before it began must not move the arm; the next look ends it.
        text = "" if goal.is_cancel_requested else goal.request.instruction
        self._inference.begin_episode(text, self._started)
        self._episode = self._inference.instruction.episode
        self._logger.info(f"goal: {text!r}")
        result = await self._ended
        assert result is not None
        return result

    def _on_cancel(self, goal: ServerGoalHandle) -> CancelResponse:
        if goal is self._goal:
            self._rest()
        return CancelResponse.ACCEPT

    def _look(self) -> None:
        goal = self._goal
        if goal is None:
            return
        limit = goal.request.time_limit
        if goal.is_cancel_requested:
            self._end(goal.canceled, "cancelled")
        elif reason := self._stream.gate.reason:
            self.abort(reason)
        elif limit and self._elapsed() >= limit:
            self._time_is_up(goal, limit)
        else:
            self._inference.confirm_instruction()
            self._tell(goal)

    def _time_is_up(self, goal: ServerGoalHandle, limit: float) -> None:
        """A goal that nothing was decoded for has not been followed."""
        if self._steps():
            self._end(goal.succeed, f"its {limit:g} s are up")
        else:
            self._end(goal.abort, f"its {limit:g} s are up, and no action was decoded: see the diagnostics")

    def _steps(self) -> int:
        """Actions decoded for the goal."""
        progress = self._inference.progress
        return progress.steps if progress.episode == self._episode else 0

    def _tell(self, goal: ServerGoalHandle) -> None:
        """Feedback, when there is a newer action."""
        progress = self._inference.progress
        if progress.episode != self._episode or progress == self._told:
            return
        self._told = progress
        feedback: Any = FollowInstruction.Feedback(  # rclpy's annotation asks for its own wrapper; it takes the message
            steps=progress.steps,
            elapsed=self._elapsed(),
            latency_ms=progress.latency_ms,
            accept_length=progress.accept_length,
        )
        goal.publish_feedback(feedback)

    def _end(self, conclude: Callable[[], None], message: str) -> None:
        result = FollowInstruction.Result(message=message, steps=self._steps(), elapsed=self._elapsed())
        self._goal = None
        self._rest()
        conclude()
        self._logger.info(f"goal ended: {message}")
        self._ended.set_result(result)

    def _rest(self) -> None:
        self._inference.begin_episode("", self._now())

    def _elapsed(self) -> float:
        return (self._now() - self._started) / 1e9
