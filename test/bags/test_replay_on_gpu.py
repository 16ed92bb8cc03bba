"""The policy node with a GPU, as a process over real DDS. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("rclpy", reason="needs ROS 2")

from specvla_ros.bags.recording import Topics
from specvla_ros.bags.replay_check import replay_check

BAG = Path(__file__).parents[1] / "data" / "closed_loop"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_bag_recorded_on_a_cpu_gives_the_same_tokens_on_a_gpu(cuda_graphs: bool) -> None:
    node = {"device": "cuda", "dtype": "float32", "draft": "hold", "cuda_graphs": cuda_graphs}
    report = replay_check(BAG, Topics(), node, fast=True)
    assert report["frames_compared"] == report["frames_recorded"] > 0
    assert report["differences"] == []
