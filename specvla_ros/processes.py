"""Child processes that share the machine's cores."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def usable_cores() -> int:
    """Processor cores that this process may use: on a cluster, or in a container, often a few of the machine's."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def single_threaded_children() -> Iterator[None]:
    """Processes spawned meanwhile compute on one thread each.

    Numpy's and torch's libraries read these when they are loaded, so it is too late for a child to set them itself; and
    threads that wait for each other on busy cores made a frame's resampling four times as slow.
    """
    before = {name: os.environ.get(name) for name in THREAD_COUNTS}
    os.environ.update(dict.fromkeys(THREAD_COUNTS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, which end with this one."""
    # A fresh interpreter for each worker: a fork of one that runs torch's or HDF5's threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent)
    with single_threaded_children(), pool:
        yield pool


def end_with_parent() -> None:
    """End this child process as soon as its parent is gone; one that was killed does not take its children along."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), name="parent watch", daemon=True).start()


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
