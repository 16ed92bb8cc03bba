from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specvla_ros.evaluation.schedule import Job, Schedule


@given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 5), st.randoms())
def test_every_job_is_handed_out_once_and_a_worker_leaves_a_task_only_when_it_is_used_up(
    episodes: list[int], workers: int, random: Random
) -> None:
    jobs = [Job(task, episode) for task, count in enumerate(episodes) for episode in range(count)]
    schedule, handed = Schedule(jobs), list[Job]()
    last = {worker: schedule.next(None) for worker in range(workers)}
    handed += [job for job in last.values() if job]
    while busy := [worker for worker, job in last.items() if job]:
        worker = random.choice(busy)
        before, job = last[worker], schedule.next(last[worker])
        if job and before and job.task != before.task:
            assert {one for one in jobs if one.task == before.task} <= set(handed)
        last[worker] = job
        handed += [job] if job else []
    assert sorted(handed) == jobs


@pytest.mark.parametrize(("episodes", "first"), [([9, 9, 9], [0, 1, 2, 0]), ([2, 8, 3], [1, 1, 2, 0])])
def test_workers_go_where_most_is_left_for_each(episodes: list[int], first: list[int]) -> None:
    schedule = Schedule(Job(task, episode) for task, count in enumerate(episodes) for episode in range(count))
    jobs = [schedule.next(None) for _ in first]
    assert [job.task for job in jobs if job] == first
