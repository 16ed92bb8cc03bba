"""The one-slot mailbox between the executor and the inference thread."""

from __future__ import annotations

import threading

from specvla_ros.nodes.worker import NewestWorker


def test_only_the_newest_of_the_waiting_items_is_worked_on() -> None:
    started, go, done = threading.Event(), threading.Event(), threading.Event()
    worked: list[int] = []

    def work(item: int) -> None:
        started.set()
        assert go.wait(5.0)
        worked.append(item)
        if item == 9:
            done.set()

    worker: NewestWorker[int] = NewestWorker(lambda: None, work)
    worker.start()
    assert not worker.submit(0)
    assert started.wait(5.0)
    replaced = [worker.submit(item) for item in range(1, 10)]
    go.set()
    assert done.wait(5.0)
    assert worker.stop(), "one that waits ends at once"
    assert worked == [0, 9] and replaced == [False] + [True] * 8


def test_setup_runs_first_and_in_the_same_thread() -> None:
    seen: list[tuple[str, int]] = []
    done = threading.Event()

    def work(item: str) -> None:
        seen.append((item, threading.get_ident()))
        done.set()

    worker: NewestWorker[str] = NewestWorker(lambda: seen.append(("setup", threading.get_ident())), work)
    worker.submit("image")
    assert not worker.wait_until_set_up(0.0)
    worker.start()
    assert worker.wait_until_set_up(5.0) and done.wait(5.0)
    worker.stop()
    assert [name for name, _ in seen] == ["setup", "image"]
    assert seen[0][1] == seen[1][1] != threading.get_ident()


def test_stopping_lets_the_work_in_hand_end_and_drops_the_rest() -> None:
    started, go = threading.Event(), threading.Event()
    worked: list[int] = []

    def work(item: int) -> None:
        started.set()
        go.wait(5.0)
        worked.append(item)

    worker: NewestWorker[int] = NewestWorker(lambda: None, work)
    worker.start()
    assert not worker.busy
    worker.submit(1)
    assert started.wait(5.0) and worker.busy
    worker.submit(2)
    assert not worker.stop(0.01), "it is still at it"
    go.set()
    assert worker.stop() and worked == [1] and not worker.busy
