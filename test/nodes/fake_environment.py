"""A scene without a simulator: its picture shows the step, its state adds up every action it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specvla_ros.sim.libero import Frame, Task


class FakeEnvironment:
    """Solved after `success_step` steps, if that is not 0."""

    def __init__(self, values: dict[str, Any], success_step: int = 0) -> None:
        self.task = Task(values["suite"], values["task"], "pick up the bowl", Path("scene"), Path("states"))
        self._success_step = success_step
        self._state = np.zeros(7)
        self._step = 0

    def reset(self, episode: int, seed: int = 0) -> Frame:
        self._state, self._step = np.full(7, float(episode + seed)), 0
        return self._frame()

    def step(self, values: NDArray[np.float64], render: bool = True) -> Frame:
        self._state = 0.9 * self._state + values
        self._step += 1
        return self._frame()

    def state(self) -> NDArray[np.float64]:
        return self._state

    def close(self) -> None:
        pass

    def _frame(self) -> Frame:
        image = np.full((64, 64, 3), (self._step * 7) % 256, np.uint8)
        return Frame(image, image, self._step, self._step == self._success_step > 0)
