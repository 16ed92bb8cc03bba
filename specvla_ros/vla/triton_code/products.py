"""Products of few rows with a layer's weights, the gate, and the rounding of rows to 8 bits."""

from __future__ import annotations

import triton
import triton.language as tl

from specvla_ros.vla.triton_code.early_start import meet_the_kernel_before


@triton.jit
def silu_times(gate, up, kind: tl.constexpr):
    """Rounded to `kind` wherever torch's operations on that type round."""
    value = gate.to(kind).to(tl.float32)
    opened = (value / (1.0 + tl.exp(-value))).to(kind).to(tl.float32)
    return opened * up.to(kind).to(tl.float32)


@triton.jit
def gate(gate_up, gated, width, BLOCK: tl.constexpr):
    """(n, 2 * width) to (n, width): SiLU of the first half times the second, rounded as `silu_times` does.

    One program for each row and block of BLOCK columns.
    """
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, start = column < width, gate_up + row * 2 * width + column
    opened, up = tl.load(start, mask=inside, other=0.0), tl.load(start + width, mask=inside, other=0.0)
    tl.store(gated + row * width + column, silu_times(opened, up, gated.dtype.element_ty), mask=inside)


@triton.jit
def product_of_a_row(
    x,
    weight,
    scale,
    out,
    width_out,
    WIDTH: tl.constexpr,
    SCALED: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    EARLY: tl.constexpr,
):
    """(WIDTH,) `x` times the transpose of (outputs, WIDTH) `weight`, without the matrix units.

    One program for each block of BLOCK_OUT outputs: it reads its rows of the weights from end to end, which goes
    fastest. Sums are float32, rounded once, as they are stored; where GATED as `silu_times` does.

    Args:
        scale: where SCALED, (outputs,) float32 that each output is multiplied with.
        out: gets (width_out,).
        GATED: the weights have 2 * width_out rows: SiLU of the first half's outputs times the second's.
    """
    output, column = tl.program_id(0) * BLOCK_OUT + tl.arange(0, BLOCK_OUT), tl.arange(0, BLOCK_IN)
    sums, ups = tl.zeros((BLOCK_OUT, BLOCK_IN), tl.float32), tl.zeros((BLOCK_OUT, BLOCK_IN), tl.float32)
    rows = weight + output[:, None].to(tl.int64) * WIDTH + column[None, :]
    for start in tl.static_range(0, WIDTH, BLOCK_IN):
        inside = start + column < WIDTH
        read = tl.load(rows + start, mask=inside[None, :], other=0.0, eviction_policy="evict_first")
        if GATED:
            place = rows + start + width_out.to(tl.int64) * WIDTH
            read_up = tl.load(place, mask=inside[None, :], other=0.0, eviction_policy="evict_first")
        if start == 0:  # the first weights are on their way while the input is still computed
            meet_the_kernel_before(EARLY)
        value = tl.load(x + start + column, mask=inside, other=0.0).to(tl.float32)[None, :]
        sums += value * read.to(tl.float32)
        if GATED:
            ups += value * read_up.to(tl.float32)
    result = tl.sum(sums, 1)
    if SCALED:
        result *= tl.load(scale + output)
    if GATED:
        up = tl.sum(ups, 1)
        if SCALED:
            up *= tl.load(scale + width_out + output)
        result = silu_times(result, up, out.dtype.element_ty)
    tl.store(out + output, result)


@triton.jit(do_not_specialize=["count"])
def product_of_rows(
    x,
    weight,
    scale,
    out,
    count,
    width_out,
    WIDTH: tl.constexpr,
    SCALED: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """(count, WIDTH) `x` times the transpose of (outputs, WIDTH) `weight`, to (count, width_out) `out`.

    One program for each block of rows and of outputs; otherwise as `product_of_a_row`, with 8-bit weights converted to
    the type of `x`. A row's result does not depend on how many others there are.
    """
    row, column = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_IN)
    output = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    given = row[:, None] < count
    sums, ups = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32), tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
    inputs = x + row[:, None] * WIDTH + column[None, :]
    rows = weight + output[:, None].to(tl.int64) * WIDTH + column[None, :]
    for start in range(0, WIDTH, BLOCK_IN):
        value = tl.load(inputs + start, mask=given, other=0.0)
        read = tl.load(rows + start, eviction_policy="evict_first")
        sums = tl.dot(value, tl.trans(read).to(value.dtype), sums)
        if GATED:
            read = tl.load(rows + start + width_out.to(tl.int64) * WIDTH, eviction_policy="evict_first")
            ups = tl.dot(value, tl.trans(read).to(value.dtype), ups)
    if SCALED:
        sums *= tl.load(scale + output)[None, :]
    if GATED:
        if SCALED:
            ups *= tl.load(scale + width_out + output)[None, :]
        sums = silu_times(sums, ups, out.dtype.element_ty)
    tl.store(out + row[:, None] * width_out + output[None, :], sums, mask=given)


@triton.jit
def quantise_rows(x, values, scale, width, largest_value, BLOCK: tl.constexpr):
    """(n, width) `x` to (n, width) 8-bit floats `values` and (n,) float32 `scale`.

    One program for each row: BLOCK >= width. In float32, rounded once, to 8 bits; a row's largest value becomes
    `largest_value`.
    """
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(value))
    factor = tl.where(largest == 0.0, 1.0, largest / largest_value)
    quantised = tl.minimum(tl.maximum(value / factor, -largest_value), largest_value)
    tl.store(values + row * width + column, quantised.to(values.dtype.element_ty), mask=inside)
    # A row with a NaN becomes NaN by its scale, so that an action that is not finite is still found out.
    is_broken = tl.max((value != value).to(tl.int32)) > 0
    tl.store(scale + row, tl.where(is_broken, float("nan"), factor))
