"""A key-value cache that is allocated once and never moves."""

from __future__ import annotations

import torch
from torch import Tensor

from specvla_ros.vla.kernels import MOST_ROW_BLOCKS


class KeyValueCache:
    """Keys and values of every layer, written in place.

    A forward pass writes behind `length`; nothing there counts until it is committed, so the nodes of a rejected
    draft need no clean-up: the next pass overwrites them.

    Args:
        layers, heads, capacity, head_size: the shape of the store, (layers, heads, capacity, head_size).

    Attributes:
        arrived: what `kernels.attend` counts with; 0 between its calls.
    """

    def __init__(
        self, layers: int, heads: int, capacity: int, head_size: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.keys = torch.zeros(layers, heads, capacity, head_size, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.arrived = torch.zeros(heads * MOST_ROW_BLOCKS, dtype=torch.int32, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions the cache can hold."""
        return self.keys.shape[2]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Put (heads, n, head_size) keys and values behind the committed ones."""
        end = self.length + keys.shape[1]
        self.keys[layer, :, self.length : end] = keys
        self.values[layer, :, self.length : end] = values

    def read(self, layer: int, window: int) -> tuple[Tensor, Tensor]:
        """The first `window` keys and values, (heads, window, head_size)."""
        return self.keys[layer, :, :window], self.values[layer, :, :window]

    def require_room(self, window: int) -> None:
        """Refuse to attend to more positions than there are.

        Raises:
            ValueError: the cache is full.
        """
        if window > self.capacity:
            raise ValueError(f"{window} positions do not fit a key-value cache of {self.capacity}")

    def move(self, nodes: Tensor) -> None:
        """Lay the written positions `nodes` (ascending indices behind `length`) together, in order, behind `length`."""
        end = self.length + len(nodes)
        slots = self.length + nodes
        self.keys[:, :, self.length : end] = self.keys[:, :, slots]
        self.values[:, :, self.length : end] = self.values[:, :, slots]

    def commit(self, count: int) -> None:
        """Keep the next `count` written positions, in order."""
        self.length += count

    def truncate(self, length: int) -> None:
        """Forget every position from `length` on."""
        self.length = length

    def clear(self) -> None:
        """Forget everything, and leave no number of it behind."""
        self.keys.zero_()
        self.values.zero_()
        self.length = 0
