from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import greedy_tokens, random_inputs, random_target
from torch.nn import functional as F

from specvla_ros import load_policy
from specvla_ros.errors import ConfigurationError
from specvla_ros.speculative.decode import SpeculativeDecoder
from specvla_ros.speculative.drafter import History
from specvla_ros.speculative.history import HoldDrafter
from specvla_ros.vla import kernels
from specvla_ros.vla.kernels import FLOAT8
from specvla_ros.vla.llama import fuse_projections, quantise_projections
from specvla_ros.vla.quantised import KINDS, QuantisedLinear, quantise_rows

CPU = torch.device("cpu")
kinds = pytest.mark.parametrize("kind", KINDS)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 999), size=st.sampled_from([1e-6, 1.0, 1e4]))
def test_a_row_in_8_bit_floats_is_off_by_at_most_half_a_step(seed: int, size: float) -> None:
    x = size * torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
    values, scale = quantise_rows(x)
    restored = values.float() * scale
    assert values.dtype == FLOAT8 and scale.shape == (3, 1)
    # Three bits behind the point: 1/16 of a value at most, and below the smallest normal number half of a fixed step.
    assert bool(((restored - x).abs() <= x.abs() / 16 + scale * 2**-10).all())


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 999), size=st.sampled_from([1e-6, 1.0, 1e4]))
def test_a_row_in_8_bit_integers_is_off_by_at_most_half_a_step(seed: int, size: float) -> None:
    x = size * torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
    values, scale = quantise_rows(x, torch.int8)
    assert values.dtype == torch.int8 and scale.shape == (3, 1)
    assert bool(((values.float() * scale - x).abs() <= 0.501 * scale).all())


@pytest.mark.parametrize(("kind", "largest"), [(FLOAT8, 448.0), (torch.int8, 127.0)])
def test_the_largest_value_of_a_row_stays_and_a_row_of_zeros_too(kind: torch.dtype, largest: float) -> None:
    values, scale = quantise_rows(torch.tensor([[0.0, 0.0], [3.0, -7.0]]), kind)
    assert values[0].float().tolist() == [0.0, 0.0] and float(scale[0]) == 1.0
    assert float(values[1, 1].float()) == -largest
    assert float((values.float() * scale)[1, 1]) == pytest.approx(-7.0)


@kinds
def test_a_weight_that_is_not_finite_makes_an_output_that_is_not(kind: str) -> None:
    weight = torch.randn(4, 8)
    weight[1, 2], weight[3, 0] = float("nan"), float("inf")
    output = QuantisedLinear(weight, kind)(torch.ones(1, 8))
    assert output.isfinite().tolist() == [[True, False, True, False]]


@kinds
@pytest.mark.parametrize("gated", [False, True])
def test_a_product_is_near_the_full_one(kind: str, gated: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(64, 128, generator=generator) / 11, torch.randn(5, 128, generator=generator)
    exact = F.linear(x, weight)
    if gated:
        exact = F.silu(exact[:, :32]) * exact[:, 32:]
    error = (QuantisedLinear(weight, kind, gated=gated)(x) - exact).norm() / exact.norm()
    assert 0 < float(error) < {"float8": 0.05, "int8": 0.02}[kind]


@kinds
def test_the_layers_give_up_their_weights_and_take_a_quarter_of_float32(kind: str) -> None:
    full, quantised = (random_target(0, layers=3, hidden_size=64).float() for _ in range(2))
    quantise_projections(quantised, CPU, kind)
    layers = quantised.language_model.model.layers
    norms = sum(parameter.nbytes for name, parameter in layers.named_parameters() if "norm" in name)
    held = sum(tensor.nbytes for tensor in [*layers.parameters(), *layers.buffers()]) - norms
    before = sum(parameter.nbytes for parameter in full.language_model.model.layers.parameters()) - norms
    assert 0.25 <= held / before < 0.3, "and a scale for each output"
    assert quantised.language_model.lm_head.weight.dtype == torch.float32


@kinds
@torch.inference_mode()
def test_strict_decoding_with_such_weights_is_their_own_greedy_decoding(kind: str) -> None:
    target = quantise_projections(random_target(3), CPU, kind)
    ids, pixels = random_inputs(3)
    decoder, history = SpeculativeDecoder(target, HoldDrafter(), capacity=300), History()
    first, second = (decoder.decode(ids, pixels, (0,) * 7, history) for _ in range(2))
    assert first[0] == second[0] == greedy_tokens(target, ids, pixels)
    assert second[1].accepted == (5,)


@kinds
@torch.inference_mode()
def test_features_stay_near_those_of_the_full_weights(kind: str) -> None:
    full, quantised = fuse_projections(random_target(1)), quantise_projections(random_target(1), CPU, kind)
    embeddings = torch.randn(9, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    features = [one(embeddings, torch.arange(9), one.new_cache(9)) for one in (full, quantised)]
    assert F.cosine_similarity(*features, dim=1).min() > 0.97


@kinds
def test_the_packages_own_model_acts_with_them(kind: str) -> None:
    import numpy as np

    policy = load_policy(draft="hold", device="cpu", weights=kind)
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    first, second = (policy.act(image, "pick up the bowl") for _ in range(2))
    assert first.tokens == second.tokens and np.isfinite(first.values).all()


def test_other_weights_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="weights 'int3' are none; expected full or float8 or int8"):
        load_policy(device="cpu", weights="int3")


@pytest.mark.skipif(kernels.triton is None, reason="Triton is not installed")
def test_the_kernel_rounds_rows_as_torch_does() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    x = torch.randn(4, 48, generator=torch.Generator().manual_seed(0)).to(device)
    x[2] = 0.0
    (values, scale), (expected, expected_scale) = kernels.quantise_rows(x), quantise_rows(x)
    torch.testing.assert_close(scale, expected_scale)
    # A quotient at the middle between two steps may fall to either side.
    assert float(((values.float() - expected.float()).abs() > 0).float().mean()) < 0.02
    x[1, 3] = float("nan")
    assert kernels.quantise_rows(x)[1].isnan().flatten().tolist() == [False, True, False, False]
    assert quantise_rows(x)[1].isnan().flatten().tolist() == [False, True, False, False]
