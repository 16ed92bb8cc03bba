"""Rotation by positions, and attention over the cache and new rows."""

from __future__ import annotations

import triton
import triton.language as tl

from specvla_ros.vla.triton_code.early_start import meet_the_kernel_before


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
    heads,
    head_size,
    HALF: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
):
    """Queries and keys rotated by their positions; keys and values to the cache's slots from `length` on.

    One program for each row and block of heads. It rounds as `rotated` does; values are copied as they are.

    Args:
        projected: (n, 3 * heads * head_size) queries, keys and values.
        cosines, sines: (n, head_size).
        queries: gets (n, heads * head_size).
        keys, values: get rows `length` to `length` + n of (heads, slots, head_size), heads `head_stride` apart.
        HALF: a power of two, at least head_size / 2.
    """
    row = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS))[:, None].to(tl.int64)
    half, width = head_size // 2, heads * head_size
    column = tl.arange(0, HALF)[None, :]
    within = column < half
    inside = within & (head < heads)
    angle = row * head_size + column
    cosine_1, cosine_2 = tl.load(cosines + angle, mask=within), tl.load(cosines + angle + half, mask=within)
    sine_1, sine_2 = tl.load(sines + angle, mask=within), tl.load(sines + angle + half, mask=within)
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


@triton.jit
def mix_by_score(score, value):
    """(rows, keys) scores to their (rows,) highest and sum of shares, and the (rows, columns) values by their shares.

    A row that may attend to none of the keys has -inf, 0 and zeros.
    """
    highest = tl.max(score, 1)
    shares = tl.exp(score - tl.where(highest == float("-inf"), 0.0, highest)[:, None])
    return highest, tl.sum(shares, 1), tl.dot(shares.to(value.dtype), value)


@triton.jit(do_not_specialize=["count", "length"])
def attend(
    projected,
    cosines,
    sines,
    keys,
    values,
    bias,
    highests,
    totals,
    sums,
    arrived,
    mixed,
    count,
    length,
    window,
    head_stride,
    width,
    scale,
    HALF: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
    PARTS: tl.constexpr,
    EARLY: tl.constexpr,
):
    """One program for each head, block of rows and part of what they attend to; the last that is done adds all up.

    The first parts are BLOCK_KEYS of the cache's slots each, the others BLOCK_ROWS of the new rows. A row's result does
    not depend on how many others there are. Scores and sums are float32; a share is rounded to the values' type before
    it is multiplied with them, and the result once, as it is stored.

    Args:
        projected: (count, 3 * width) queries, keys and values of the new rows; a head has 2 * HALF columns.
        cosines, sines: (count, 2 * HALF).
        keys, values: (heads, slots, 2 * HALF), heads `head_stride` apart: `length` slots are read, and the new rows'
            keys and values put behind them.
        bias: (count, window) added to the scores, of the cache's slots and then of the new rows.
        highests, totals: (heads, PARTS, count) float32, where a part leaves its highest scores and sums of shares.
        sums: (heads, PARTS, count, 2 * HALF) float32, where it leaves the values weighted with the shares.
        arrived: (heads, blocks of rows) int32, how many parts are done; 0 before and after.
        mixed: gets (count, width).
    """
    head, size, part = tl.program_id(0).to(tl.int64), 2 * HALF, tl.program_id(2)
    cached_parts = PARTS - tl.num_programs(1)  # there are as many parts of new rows as blocks of rows
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    half, column = tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    given = row[:, None] < count
    keys += head * head_stride
    values += head * head_stride
    # Earlier passes wrote these slots.
    slot = part * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    written = slot < tl.where(part < cached_parts, length, 0)
    place = slot[:, None] * size
    key_1 = tl.load(keys + place + half[None, :], mask=written[:, None], other=0.0)
    key_2 = tl.load(keys + place + HALF + half[None, :], mask=written[:, None], other=0.0)
    value = tl.load(values + place + column[None, :], mask=written[:, None], other=0.0)
    meet_the_kernel_before(EARLY)
    rows = projected + row[:, None] * 3 * width + head * size + half[None, :]
    query_1, query_2 = load_rotated(rows, row[:, None] * size + half[None, :], cosines, sines, given, HALF)
    if part < cached_parts:
        score = tl.dot(query_1, tl.trans(key_1)) + tl.dot(query_2, tl.trans(key_2))
        allowed = bias + row[:, None] * window + slot[None, :]
        allowed = tl.load(allowed, mask=given & written[None, :], other=float("-inf"))
        highest, total, mix = mix_by_score(score * scale + allowed.to(tl.float32), value)
    else:
        new = (part - cached_parts) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        known = new[:, None] < count
        new_rows = projected + new[:, None] * 3 * width + width + head * size
        angle = new[:, None] * size + half[None, :]
        new_1, new_2 = load_rotated(new_rows + half[None, :], angle, cosines, sines, known, HALF)
        new_value = tl.load(new_rows + width + column[None, :], mask=known, other=0.0)
        behind = (length + new[:, None]) * size
        stored = new[:, None] < tl.where(tl.program_id(1) == 0, count, 0)  # once for a head
        tl.store(keys + behind + half[None, :], new_1, mask=stored)
        tl.store(keys + behind + HALF + half[None, :], new_2, mask=stored)
        tl.store(values + behind + column[None, :], new_value, mask=stored)
        new_score = tl.dot(query_1, tl.trans(new_1)) + tl.dot(query_2, tl.trans(new_2))
        admitted = bias + row[:, None] * window + length + new[None, :]
        admitted = tl.load(admitted, mask=given & (new[None, :] < count), other=float("-inf"))
        highest, total, mix = mix_by_score(new_score * scale + admitted.to(tl.float32), new_value)
    first = head * PARTS * count + row
    tl.store(highests + first + part * count, highest, mask=row < count)
    tl.store(totals + first + part * count, total, mask=row < count)
    tl.store(sums + (first + part * count)[:, None] * size + column[None, :], mix, mask=given)
    tl.debug_barrier()  # all threads have stored before one of them counts, which the last to count then sees
    counter = arrived + head * tl.num_programs(1) + tl.program_id(1)
    if tl.atomic_add(counter, 1) == PARTS - 1:
        tl.store(counter, 0)
        top = tl.zeros((BLOCK_ROWS,), tl.float32) + float("-inf")
        for other in tl.static_range(0, PARTS):
            at = first + other * count
            top = tl.maximum(top, tl.load(highests + at, mask=row < count, other=0.0, cache_modifier=".cg"))
        whole = tl.zeros((BLOCK_ROWS,), tl.float32)
        result = tl.zeros((BLOCK_ROWS, 2 * HALF), tl.float32)
        for other in tl.static_range(0, PARTS):
            at = first + other * count
            weight = tl.exp(tl.load(highests + at, mask=row < count, other=0.0, cache_modifier=".cg") - top)
            whole += weight * tl.load(totals + at, mask=row < count, other=1.0, cache_modifier=".cg")
            part_sums = sums + at[:, None] * size + column[None, :]
            result += weight[:, None] * tl.load(part_sums, mask=given, other=0.0, cache_modifier=".cg")
        out = mixed + row[:, None] * width + head * size + column[None, :]
        tl.store(out, result / whole[:, None], mask=given)
