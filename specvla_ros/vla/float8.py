"""Weights of 8-bit floats: half the memory of bfloat16, and half the traffic where memory is what a pass waits for.

Each output's weights share a scale. A few rows are multiplied as they are, by our own kernel. Of many rows, as in the
prefill, each is rounded too (e4m3, with a scale of its own), and the product is torch's. On a CPU the weights are widened
for each product: the same rounding of weights, no gain of time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.errors import ConfigurationError
from specvla_ros.vla import kernels
from specvla_ros.vla.kernels import FLOAT8
from specvla_ros.vla.kernels import LARGEST_FLOAT8 as LARGEST
from specvla_ros.vla.products import gate

COMPUTE_CAPABILITY = (8, 9)
"""Of the first GPUs whose matrix units know 8-bit floats."""


class Float8Linear(nn.Module):
    """(n, in) to (n, out) like a linear layer without a bias.

    Args:
        weight: (out, in) in the type of the inputs.
        gated: see `specvla_ros.vla.products.gated_linear`.

    Attributes:
        values: (out, in) 8-bit floats; `scale`: (1, out) float32, what they are multiplied with.
    """

    values: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, *, gated: bool = False) -> None:
        super().__init__()
        self.gated = gated
        values, scale = quantise_rows(weight)
        self.register_buffer("values", values)
        self.register_buffer("scale", scale.T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        if kernels.multiplies(x, self.values):
            return kernels.product(x, self.values, self.scale[0], gated=self.gated)
        product = self._product(x)
        return gate(product) if self.gated else product

    def _product(self, x: Tensor) -> Tensor:
        if not x.is_cuda:
            return F.linear(x, (self.values.float() * self.scale.T).to(x.dtype))
        rows, scale = kernels.quantise_rows(x) if kernels.usable(x) else quantise_rows(x)
        return torch._scaled_mm(rows, self.values.T, scale, self.scale, out_dtype=x.dtype, use_fast_accum=True)


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, width) to 8-bit floats and the (n, 1) float32 scales that bring them back; a row of zeros has scale 1."""
    largest = x.float().abs().amax(dim=1, keepdim=True)
    scale = torch.where(largest == 0, 1.0, largest / LARGEST)
    return (x.float() / scale).clamp(-LARGEST, LARGEST).to(FLOAT8), scale


def require_float8_products(device: torch.device, dtype: torch.dtype) -> None:
    """Refuse what torch's product of 8-bit floats cannot be.

    Raises:
        ConfigurationError: the GPU is older, or the type is not bfloat16.
    """
    if device.type != "cuda":
        return
    capability = torch.cuda.get_device_capability(device)
    if capability < COMPUTE_CAPABILITY:
        raise ConfigurationError(
            f"weights float8: this GPU's compute capability is {capability[0]}.{capability[1]}; 8-bit floats need 8.9 "
            "(Ada, Hopper) or newer: use weights full"
        )
    if dtype != torch.bfloat16:
        raise ConfigurationError(f"weights float8: on a GPU they go with dtype bfloat16, not {dtype}")
