from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from specvla_ros.bench.conditions import conditions
from specvla_ros.bench.rates import Rates


def test_the_clocks_are_those_of_the_gpu_that_was_used_not_of_the_machines_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = {"GPU-hidden": "1, 2 MHz, 3 MHz", "GPU-visible": "570.1, 1980 MHz, 2619 MHz"}

    def nvidia_smi(command: list[str], **_: Any) -> SimpleNamespace:
        assert command[0] == "nvidia-smi"
        (chosen,) = [word.removeprefix("--id=") for word in command if word.startswith("--id=")]
        return SimpleNamespace(stdout=clocks[chosen] + "\n")

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="visible"))
    monkeypatch.setattr(subprocess, "run", nvidia_smi)
    found = conditions(torch.device("cuda"), Rates(1e12, 1e15), {})
    assert (found["driver"], found["GPU clock"], found["GPU memory clock"]) == ("570.1", "1980 MHz", "2619 MHz")
