"""Products with the weights of a layer: by our own kernel for the few rows of a decoding step, else by torch's."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.vla import kernels


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """(n, in) to (n, out) by (out, in) weights."""
    return kernels.product(x, weight) if kernels.multiplies(x, weight) else F.linear(x, weight)


def gated_linear(x: Tensor, weight: Tensor) -> Tensor:
    """(n, in) to (n, out) by (2 * out, in) weights: SiLU of the first half of the outputs times the second."""
    return kernels.product(x, weight, gated=True) if kernels.multiplies(x, weight) else gate(F.linear(x, weight))


def gate(gate_up: Tensor) -> Tensor:
    """(n, 2 * width) to (n, width): SiLU of the first half times the second."""
    if kernels.usable(gate_up):
        return kernels.gate(gate_up)
    opened, up = gate_up.chunk(2, dim=-1)
    return F.silu(opened) * up


class Linear(nn.Linear):
    """Without a bias."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(width_in, width_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)
