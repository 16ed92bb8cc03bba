"""Weights of 8 bits: half the memory of bfloat16, and half the traffic where memory is what a pass waits for.

Each output's weights share a scale. A few rows are multiplied as they are, by our own kernel, which widens the weights
as it reads them. Of many rows, as in the prefill:

- float8 (e4m3): each row is rounded too, with a scale of its own, and the product is torch's, on matrix units that know
  8-bit floats.
- int8, for a GPU that has none: our own kernel again, at half the speed of a product of full weights.

Where our kernel cannot be used, as on a CPU, the weights are widened for each product: the same rounding of weights,
and no gain of time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.errors import ConfigurationError
from specvla_ros.vla import kernels
from specvla_ros.vla.kernels import FLOAT8
from specvla_ros.vla.products import gate

KINDS = {"float8": FLOAT8, "int8": torch.int8}
"""What weights can be rounded to, by the name that `load_policy` knows."""
COMPUTE_CAPABILITY = (8, 9)
"""Of the first GPUs whose matrix units know 8-bit floats."""


class QuantisedLinear(nn.Module):
    """(n, in) to (n, out) like a linear layer without a bias.

    Args:
        weight: (out, in) in the type of the inputs.
        kind: of `KINDS`.
        gated: see `specvla_ros.vla.products.gated_linear`.

    Attributes:
        values: (out, in) of 8 bits; `scale`: (1, out) float32, what they are multiplied with.
    """

    values: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, kind: str, *, gated: bool = False) -> None:
        super().__init__()
        self.gated = gated
        values, scale = quantise_rows(weight, KINDS[kind])
        self.register_buffer("values", values)
        self.register_buffer("scale", scale.T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        if kernels.multiplies(x, self.values):
            return kernels.product(x, self.values, self.scale[0], gated=self.gated)
        product = self._product(x)
        return gate(product) if self.gated else product

    def _product(self, x: Tensor) -> Tensor:
        if not x.is_cuda or self.values.dtype != FLOAT8:
            return F.linear(x, (self.values.float() * self.scale.T).to(x.dtype))
        rows, scale = kernels.quantise_rows(x) if kernels.usable(x) else quantise_rows(x)
        return torch._scaled_mm(rows, self.values.T, scale, self.scale, out_dtype=x.dtype, use_fast_accum=True)


def quantise_rows(x: Tensor, kind: torch.dtype = FLOAT8) -> tuple[Tensor, Tensor]:
    """(n, width) to 8 bits and the (n, 1) float32 scales that bring them back; a row of zeros has scale 1."""
    largest = x.float().abs().amax(dim=1, keepdim=True)
    most = torch.finfo(kind).max if kind.is_floating_point else torch.iinfo(kind).max
    scale = torch.where(largest == 0, 1.0, largest / most)
    values = (x.float() / scale).clamp(-most, most)
    return (values if kind.is_floating_point else values.round()).to(kind), scale


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
            "(Ada, Hopper) or newer: use weights int8"
        )
    if dtype != torch.bfloat16:
        raise ConfigurationError(f"weights float8: on a GPU they go with dtype bfloat16, not {dtype}")
