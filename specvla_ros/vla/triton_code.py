"""The kernels of `specvla_ros.vla.kernels` in Triton's language, which knows no types of arguments.

Rows lie behind each other in memory. Products and attention are started with a program for each block of their results,
all others with one for each row.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rms_norm(x, weight, normed, width, eps, BLOCK: tl.constexpr):
    """(n, width) `x` normed by its root mean square, times (width,) `weight`, to (n, width) `normed`.

    One program for each row, which it holds whole: BLOCK >= width. In float32, rounded once, as it is stored.
    """
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    result = value * scale * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + row * width + column, result, mask=inside)


@triton.jit
def add_rms_norm(x, change, weight, total, normed, width, eps, BLOCK: tl.constexpr):
    """(n, width) `x` + `change` to `total`, and the norm of that, as `rms_norm`'s, to `normed`.

    One program for each row: BLOCK >= width. The sum is rounded to its type before it is normed; the norm once, as it
    is stored.
    """
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside, place = column < width, row * width + column
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(change + place, mask=inside, other=0.0).to(tl.float32)
    rounded = value.to(total.dtype.element_ty)
    tl.store(total + place, rounded, mask=inside)
    value = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    result = value * scale * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
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


@triton.jit
def rotated(first, second, cosine, sine):
    """Products and sum are rounded one by one, as torch's operations on these types are."""
    kind = first.dtype
    one = (first.to(tl.float32) * cosine.to(tl.float32)).to(kind).to(tl.float32)
    other = (second.to(tl.float32) * sine.to(tl.float32)).to(kind).to(tl.float32)
    return (one + other).to(kind)


@triton.jit
def rotate_and_store(
    projected,
    cosines,
    sines,
    queries,
    keys,
    values,
    length,
    head_stride,
    width,
    head_size,
    HALF: tl.constexpr,
):
    """Queries and keys rotated by their positions; keys and values to the cache's slots from `length` on.

    One program for each row and head. It rounds as `rotated` does; values are copied as they are.

    Args:
        projected: (n, 3 * width) queries, keys and values, each of width / head_size heads.
        cosines, sines: (n, head_size).
        queries: gets (n, width).
        keys, values: get rows `length` to `length` + n of (heads, slots, head_size), heads `head_stride` apart.
        HALF: a power of two, at least head_size / 2.
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    half = head_size // 2
    column = tl.arange(0, HALF)
    inside = column < half
    cosine_1 = tl.load(cosines + row * head_size + column, mask=inside)
    cosine_2 = tl.load(cosines + row * head_size + half + column, mask=inside)
    sine_1 = tl.load(sines + row * head_size + column, mask=inside)
    sine_2 = tl.load(sines + row * head_size + half + column, mask=inside)
    query = projected + row * 3 * width + head * head_size + column
    first, second = tl.load(query, mask=inside), tl.load(query + half, mask=inside)
    out = queries + row * width + head * head_size + column
    tl.store(out, rotated(first, -second, cosine_1, sine_1), mask=inside)
    tl.store(out + half, rotated(second, first, cosine_2, sine_2), mask=inside)
    first, second = tl.load(query + width, mask=inside), tl.load(query + width + half, mask=inside)
    slot = head * head_stride + (length + row) * head_size + column
    tl.store(keys + slot, rotated(first, -second, cosine_1, sine_1), mask=inside)
    tl.store(keys + slot + half, rotated(second, first, cosine_2, sine_2), mask=inside)
    tl.store(values + slot, tl.load(query + 2 * width, mask=inside), mask=inside)
    tl.store(values + slot + half, tl.load(query + 2 * width + half, mask=inside), mask=inside)


@triton.jit
def load_rotated(start, angle, cosines, sines, given, HALF: tl.constexpr):
    """Both halves, (rows, HALF) each, of rows of a head, rotated by their positions."""
    first, second = tl.load(start, mask=given, other=0.0), tl.load(start + HALF, mask=given, other=0.0)
    cosine_1, cosine_2 = tl.load(cosines + angle, mask=given), tl.load(cosines + angle + HALF, mask=given)
    sine_1, sine_2 = tl.load(sines + angle, mask=given), tl.load(sines + angle + HALF, mask=given)
    return rotated(first, -second, cosine_1, sine_1), rotated(second, first, cosine_2, sine_2)


@triton.jit(do_not_specialize=["count", "length"])
def attend(
    projected,
    cosines,
    sines,
    keys,
    values,
    bias,
    mixed,
    count,
    length,
    window,
    head_stride,
    width,
    scale,
    HALF: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_NEW: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """One program for each head and block of rows: the new rows, then the cache block by block (online softmax).

    A row's result does not depend on how many others there are. Scores and sums are float32; a share is rounded to the
    values' type before it is multiplied with them, and the result once, as it is stored.

    Args:
        projected: (count, 3 * width) queries, keys and values of the new rows; a head has 2 * HALF columns.
        cosines, sines: (count, 2 * HALF).
        keys, values: (heads, slots, 2 * HALF), heads `head_stride` apart: `length` slots are read, and the new rows'
            keys and values put behind them.
        bias: (count, window) added to the scores, of the cache's slots and then of the new rows.
        mixed: gets (count, width).
        BLOCKS: of BLOCK_KEYS slots, which hold `length`.
    """
    head, size = tl.program_id(0).to(tl.int64), 2 * HALF
    row, new = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_NEW)
    half, column = tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    given, known = row[:, None] < count, new[:, None] < count
    rows = projected + row[:, None] * 3 * width + head * size + half[None, :]
    query_1, query_2 = load_rotated(rows, row[:, None] * size + half[None, :], cosines, sines, given, HALF)
    rows = projected + new[:, None] * 3 * width + width + head * size
    new_1, new_2 = load_rotated(rows + half[None, :], new[:, None] * size + half[None, :], cosines, sines, known, HALF)
    new_values = tl.load(rows + width + column[None, :], mask=known, other=0.0)
    keys += head * head_stride
    values += head * head_stride
    slots = (length + new[:, None]) * size
    stored = new[:, None] < tl.where(tl.program_id(1) == 0, count, 0)  # once for a head
    tl.store(keys + slots + half[None, :], new_1, mask=stored)
    tl.store(keys + slots + HALF + half[None, :], new_2, mask=stored)
    tl.store(values + slots + column[None, :], new_values, mask=stored)

    own = tl.dot(query_1, tl.trans(new_1)) + tl.dot(query_2, tl.trans(new_2))
    own_bias = bias + row[:, None] * window + length + new[None, :]
    own = own * scale + tl.load(own_bias, mask=given & (new[None, :] < count), other=float("-inf")).to(tl.float32)
    own = tl.where(given, own, 0.0)  # padding rows must stay finite, or softmax gives NaN
    highest = tl.max(own, 1)
    shares = tl.exp(own - highest[:, None])
    total = tl.sum(shares, 1)
    sums = tl.dot(shares.to(new_values.dtype), new_values)
    for block in range(0, BLOCKS):
        slot = block * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
        written = slot < length
        place = slot[:, None] * size
        key_1 = tl.load(keys + place + half[None, :], mask=written[:, None], other=0.0)
        key_2 = tl.load(keys + place + HALF + half[None, :], mask=written[:, None], other=0.0)
        value = tl.load(values + place + column[None, :], mask=written[:, None], other=0.0)
        allowed = tl.load(
            bias + row[:, None] * window + slot[None, :], mask=given & written[None, :], other=float("-inf")
        )
        score = tl.dot(query_1, tl.trans(key_1)) + tl.dot(query_2, tl.trans(key_2))
        score = score * scale + allowed.to(tl.float32)
        higher = tl.maximum(highest, tl.max(score, 1))
        share = tl.exp(score - higher[:, None])
        shrink = tl.exp(highest - higher)
        total = total * shrink + tl.sum(share, 1)
        sums = tl.dot(share.to(value.dtype), value, sums * shrink[:, None])
        highest = higher
    tl.store(mixed + row[:, None] * width + head * size + column[None, :], sums / total[:, None], mask=given)


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
        value = tl.load(x + start + column, mask=inside, other=0.0).to(tl.float32)[None, :]
        read = tl.load(rows + start, mask=inside[None, :], other=0.0, eviction_policy="evict_first")
        sums += value * read.to(tl.float32)
        if GATED:
            place = rows + start + width_out.to(tl.int64) * WIDTH
            read = tl.load(place, mask=inside[None, :], other=0.0, eviction_policy="evict_first")
            ups += value * read.to(tl.float32)
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
