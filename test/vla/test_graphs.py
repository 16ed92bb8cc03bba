"""How CUDA graphs are recorded, by what torch is asked to do: what they compute is tested where there is a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from specvla_ros.vla.graphs import CudaRecorder, _recording_stream


def test_each_gpu_records_on_one_stream_of_its_own(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    _recording_stream.cache_clear()
    request.addfinalizer(_recording_stream.cache_clear)
    gpu, recorded_on = SimpleNamespace(current=0), list[Any]()

    def graph(_: object, *, pool: object, stream: Any, capture_error_mode: str) -> nullcontext[None]:
        recorded_on.append(stream)
        return nullcontext()

    fakes = {
        "current_device": lambda: gpu.current,
        "current_stream": MagicMock(),
        "graph_pool_handle": MagicMock(),
        "CUDAGraph": MagicMock(),
        "Stream": lambda device: MagicMock(device=device),
        "stream": lambda stream: nullcontext(),
        "graph": graph,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    for gpu.current in (0, 1, 1, 0):
        CudaRecorder()(lambda: ())
    assert [stream.device for stream in recorded_on] == [0, 1, 1, 0]
    assert recorded_on[0] is recorded_on[3] and recorded_on[1] is recorded_on[2]
