"""One model for many scenes: the parent process decodes, each worker asks it over a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import DecodeError, SpecVLAError
from specvla_ros.policy import Action, Policy, Thresholds

STOP_SECONDS = 10.0
"""That a worker, or the thread that answers it, has to end."""
RESET = None
"""What a worker sends when an episode begins; else an image and an instruction."""


class ServedPolicy:
    """A worker's end: a `Policy` that asks the parent process.

    Args:
        thresholds: the parent's policy has them already, and they stay.
    """

    def __init__(self, connection: Connection, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self._connection = connection

    def act(self, image: NDArray[np.uint8], instruction: str) -> Action:
        """See `specvla_ros.policy.Policy`."""
        answer = self._ask((image, instruction))
        assert isinstance(answer, Action)
        return answer

    def reset(self) -> None:
        """See `specvla_ros.policy.Policy`."""
        self._ask(RESET)

    def _ask(self, question: tuple[NDArray[np.uint8], str] | None) -> Any:
        self._connection.send(question)
        answer = self._connection.recv()
        if isinstance(answer, SpecVLAError):
            raise answer
        return answer


@contextmanager
def serving(policies: Sequence[Policy], connections: Sequence[Connection]) -> Iterator[None]:
    """Answer each worker by a policy of its own, on the same weights, in a thread of its own."""
    turn = Lock()
    threads = [
        Thread(target=serve, args=(policy, connection, turn), daemon=True, name="served policy")
        for policy, connection in zip(policies, connections, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread, connection in zip(threads, connections, strict=True):
            thread.join(STOP_SECONDS)  # its worker is gone
            connection.close()


def serve(policy: Policy, connection: Connection, turn: Lock) -> None:
    """The parent's end: until the worker is gone.

    Args:
        turn: one policy decodes at a time, so that its times are not those of waiting for another.
    """
    with suppress(EOFError, OSError):
        while True:
            question = connection.recv()
            with turn:
                answer = _answer(policy, question)
            connection.send(answer)


def _answer(policy: Policy, question: tuple[NDArray[np.uint8], str] | None) -> Action | SpecVLAError | None:
    try:
        if question is not RESET:
            return policy.act(*question)
        policy.reset()
        return None
    except SpecVLAError as error:
        return error
    except Exception as error:  # the worker waits for an answer, whatever it is
        return DecodeError(f"{type(error).__name__}: {error}")
