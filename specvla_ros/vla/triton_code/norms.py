"""Norms, and sums with what was added last."""

from __future__ import annotations

import triton
import triton.language as tl

from specvla_ros.vla.triton_code.early_start import meet_the_kernel_before


@triton.jit
def rms_norm(x, weight, normed, width, eps, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """(n, width) `x` normed by its root mean square, times (width,) `weight`, to (n, width) `normed`.

    One program for each row, which it holds whole: BLOCK >= width. In float32, rounded once, as it is stored.
    """
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < width
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    meet_the_kernel_before(EARLY)
    value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    result = value * scale * gain
    tl.store(normed + row * width + column, result, mask=inside)


@triton.jit
def add_rms_norm(x, change, weight, total, normed, width, eps, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """(n, width) `x` + `change` to `total`, and the norm of that, as `rms_norm`'s, to `normed`.

    One program for each row: BLOCK >= width. The sum is rounded to its type before it is normed; the norm once, as it
    is stored.
    """
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, place = column < width, row * width + column
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    meet_the_kernel_before(EARLY)
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(change + place, mask=inside, other=0.0).to(tl.float32)
    rounded = value.to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=inside)
    value = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    result = value * scale * gain
    tl.store(normed + place, result, mask=inside)


@triton.jit
def add_layer_norm(
    x, change, scale, weight, bias, total, normed, width, eps, SCALED: tl.constexpr, BLOCK: tl.constexpr
):
    """(n, width) `x` + `change` to `total`, and the layer norm of that to `normed`.

    Where SCALED, `change` is first multiplied with (width,) `scale`; `weight` and `bias` are (width,). One program for
    each row: BLOCK >= width. The product and the sum are each rounded to their type, the norm once, as it is stored.
    """
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, place = column < width, row * width + column
    added = tl.load(change + place, mask=inside, other=0.0)
    if SCALED:
        product = added.to(tl.float32) * tl.load(scale + column, mask=inside, other=0.0).to(tl.float32)
        added = product.to(added.dtype)
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) + added.to(tl.float32)
    rounded = value.to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=inside)
    value = rounded.to(tl.float32)
    centred = tl.where(inside, value - tl.sum(value) / width, 0.0)
    deviation = tl.rsqrt(tl.sum(centred * centred) / width + eps)
    result = centred * deviation * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    result += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + place, result, mask=inside)
