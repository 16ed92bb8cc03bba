"""Triton's kernels against torch's own operations: by Triton's interpreter, or on a GPU where there is one."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from torch.nn import functional as F

from specvla_ros.vla import kernels
from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.llama import attention_bias, rotate
from specvla_ros.vla.quantised import KINDS, quantise_rows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPS = 1e-6
sizes = pytest.mark.parametrize(("rows", "heads", "head_size"), [(1, 2, 8), (5, 4, 16), (3, 2, 48), (2, 1, 1050)])
# The interpreter cuts bfloat16 off where a GPU rounds.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if torch.cuda.is_available() else [])]
types = pytest.mark.parametrize("dtype", DTYPES)
pytestmark = pytest.mark.skipif(kernels.triton is None, reason="Triton is not installed")


def drawn(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """But for the last digit, where a sum was added up in another order."""
    digits = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[actual.dtype]
    torch.testing.assert_close(actual, expected, atol=2 * digits, rtol=digits)


def test_tensors_on_a_gpu_that_is_not_current_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_works", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for index in (0, 1):
        x = Mock(is_cuda=True, device=torch.device("cuda", index), dtype=torch.float32)
        x.dim.return_value = 2
        with torch.inference_mode():
            assert kernels.usable(x) == (index == 1)


@types
@sizes
def test_norms_are_torchs(rows: int, heads: int, head_size: int, dtype: torch.dtype) -> None:
    width = heads * head_size
    x, change, weight = (drawn(*shape, dtype=dtype) for shape in ((rows, width), (rows + 1, width), (width,)))
    change = change[:rows].contiguous()
    assert_same(kernels.rms_norm(x, weight, EPS), F.rms_norm(x, (width,), weight, EPS))
    total, normed = kernels.add_rms_norm(x, change, weight, EPS)
    assert torch.equal(total, x + change)
    assert_same(normed, F.rms_norm(x + change, (width,), weight, EPS))


@types
@sizes
@pytest.mark.parametrize("scaled", [False, True])
def test_layer_norms_are_torchs(rows: int, heads: int, head_size: int, dtype: torch.dtype, scaled: bool) -> None:
    width = heads * head_size
    x, change = drawn(1, rows, width, dtype=dtype), drawn(1, rows + 1, width, dtype=dtype)[:, :rows].contiguous()
    weight, bias, scale = drawn(3, width, dtype=dtype)
    total, normed = kernels.add_layer_norm(x, change, scale if scaled else None, weight, bias, EPS)
    assert_same(total, x + (change * scale if scaled else change))
    assert_same(normed, F.layer_norm(total, (width,), weight, bias, EPS))


@types
@sizes
def test_queries_are_rotated_and_keys_and_values_stored_behind_the_committed(
    rows: int, heads: int, head_size: int, dtype: torch.dtype
) -> None:
    projected = drawn(rows, 3 * heads * head_size, dtype=dtype)
    rotation = drawn(rows, head_size, dtype=dtype), drawn(rows + 1, head_size, dtype=dtype)[:rows].contiguous()
    cache, expected = (KeyValueCache(2, heads, 12, head_size, dtype=dtype, device=DEVICE) for _ in range(2))
    cache.length = expected.length = 4
    queries = kernels.rotate_and_store(projected, rotation, cache, 1, heads)
    new = projected.view(rows, 3, heads, head_size).permute(1, 2, 0, 3)
    rotated, keys = rotate(new[:2], rotation)
    expected.write(1, keys, new[2])
    assert_same(queries, rotated)
    assert_same(cache.keys, expected.keys)
    assert torch.equal(cache.values, expected.values)


@types
@sizes
def test_a_gate_is_the_silu_of_the_first_half_times_the_second(
    rows: int, heads: int, head_size: int, dtype: torch.dtype
) -> None:
    gate_up = 4 * drawn(rows, 2 * heads * head_size, dtype=dtype)
    gate, up = gate_up.chunk(2, dim=-1)
    assert_same(kernels.gate(gate_up), F.silu(gate) * up)


def test_they_are_not_used_where_a_gradient_is_wanted_or_without_a_gpu() -> None:
    assert not kernels.usable(torch.ones(2, 2))
    assert not kernels.usable(torch.ones(2, 2, device=DEVICE))


def exact_product(x: torch.Tensor, weight: torch.Tensor, gated: bool) -> torch.Tensor:
    product = F.linear(x.double(), weight.double())
    return F.silu(product.chunk(2, dim=1)[0]) * product.chunk(2, dim=1)[1] if gated else product


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.float32])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 256), (1, 1536), (2, 512), (7, 256), (kernels.MOST_ROWS, 768)])
def test_a_product_of_few_rows_is_the_exact_one_rounded(rows: int, width: int, gated: bool, dtype: torch.dtype) -> None:
    x, weight = drawn(rows, width, dtype=dtype), drawn(512, width, dtype=dtype) / width**0.5
    product = kernels.product(x, weight, gated=gated)
    assert product.shape == (rows, 256 if gated else 512) and product.dtype == dtype
    exact = exact_product(x, weight, gated)
    assert float((product.double() - exact).norm() / exact.norm()) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("rows", "kind"), [(1, "float8"), (5, "float8"), (1, "int8"), (5, "int8"), (70, "int8")])
def test_a_product_with_weights_of_8_bits_does_not_round_the_rows(rows: int, kind: str, gated: bool) -> None:
    x = drawn(rows, 512, dtype=DTYPES[-1])
    values, scale = quantise_rows(drawn(512, 512, dtype=torch.float32) / 512**0.5, KINDS[kind])
    product = kernels.product(x, values, scale[:, 0], gated=gated)
    exact = exact_product(x, values.double() * scale, gated)
    assert float((product.double() - exact).norm() / exact.norm()) < 2 * torch.finfo(x.dtype).eps


def test_a_row_of_a_product_does_not_depend_on_the_others() -> None:
    x, weight = drawn(7, 512, dtype=DTYPES[-1]), drawn(256, 512, dtype=DTYPES[-1])
    product = kernels.product(x, weight)
    for count in range(2, 7):
        assert torch.equal(kernels.product(x[:count].contiguous(), weight), product[:count])


def scene(
    rows: int, head_size: int, length: int, dtype: torch.dtype
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], KeyValueCache, torch.Tensor]:
    """Projections and rotations of `rows` new positions, a cache of two layers and two heads, and an attention bias."""
    rotation = drawn(64, head_size, dtype=dtype)[:rows], drawn(65, head_size, dtype=dtype)[:rows]
    cache = KeyValueCache(2, 2, length + rows + 3, head_size, dtype=dtype, device=DEVICE)
    cache.length = length
    cache.keys[:, :, :length] = drawn(2, 2, length, head_size, dtype=dtype)
    cache.values[:, :, :length] = drawn(2, 2, length, head_size, dtype=dtype) + 1
    allowed = torch.zeros(rows, cache.capacity, dtype=torch.bool, device=DEVICE)
    allowed[:, :length] = drawn(64, length, dtype=torch.float32)[:rows] > -1
    behind = (drawn(64, 64, dtype=torch.float32) > 0).tril() | torch.eye(64, dtype=torch.bool, device=DEVICE)
    allowed[:, length : length + rows] = behind[:rows, :rows]
    return drawn(64, 6 * head_size, dtype=dtype)[:rows], rotation, cache, attention_bias(allowed, dtype)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != torch.float32])
@pytest.mark.parametrize(("rows", "head_size", "length"), [(1, 32, 70), (6, 64, 64), (16, 128, 9), (50, 32, 130)])
def test_attention_over_the_cache_and_a_tree_is_torchs(
    rows: int, head_size: int, length: int, dtype: torch.dtype
) -> None:
    projected, rotation, cache, bias = scene(rows, head_size, length, dtype)
    expected = scene(rows, head_size, length, dtype)[2]
    mixed = kernels.attend(projected, rotation, cache, 1, 2, bias)
    queries = kernels.rotate_and_store(projected, rotation, expected, 1, 2)
    exact = F.scaled_dot_product_attention(
        queries.double(), *(part.double() for part in expected.read(1, cache.capacity)), attn_mask=bias.double()
    )
    assert_same(cache.keys, expected.keys)
    assert torch.equal(cache.values, expected.values)
    error = mixed.double() - exact.transpose(0, 1).reshape(mixed.shape)
    assert float(error.norm() / exact.norm()) < 2 * torch.finfo(dtype).eps


def test_slots_that_no_row_may_attend_to_change_nothing_however_many_they_are() -> None:
    """A padded prompt's: they fill whole parts of the cache."""
    dtype, step = DTYPES[-1], kernels.ATTENTION_STEP
    projected, rotation, cache, bias = scene(6, 32, 20, dtype)
    expected = kernels.attend(projected, rotation, cache, 1, 2, bias)
    gap = 3 * step
    padded = KeyValueCache(2, 2, cache.capacity + gap, 32, dtype=dtype, device=DEVICE)
    padded.length = 20 + gap
    padded.keys[:, :, :20], padded.values[:, :, :20] = cache.keys[:, :, :20], cache.values[:, :, :20]
    padded.keys[:, :, 20:], padded.values[:, :, 20:] = 7.0, 7.0
    never = torch.full((6, gap), float("-inf"), dtype=dtype, device=DEVICE)
    bias = torch.cat([bias[:, :20], never, bias[:, 20:]], dim=1)
    assert_same(kernels.attend(projected, rotation, padded, 1, 2, bias), expected)
    assert not padded.arrived.any()


def test_attention_of_a_row_does_not_depend_on_the_others() -> None:
    """What a strict draft lives by where numbers are short: a node of a tree is computed as a greedy step is."""
    whole = kernels.attend(*scene(50, 64, 130, DTYPES[-1])[:3], 1, 2, scene(50, 64, 130, DTYPES[-1])[3])
    for rows in (1, 6, 16, 17):
        projected, rotation, cache, bias = scene(rows, 64, 130, DTYPES[-1])
        assert torch.equal(kernels.attend(projected, rotation, cache, 1, 2, bias), whole[:rows])
