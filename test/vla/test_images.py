"""Each step of the image preparation against a slow reference written from TensorFlow's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CASES, needs_reference

from specvla_ros.errors import ConfigurationError, ImageError
from specvla_ros.vla.images import (
    centre_crop,
    jpeg_round_trip,
    prepare_image,
    processor_pixels,
    resize_lanczos,
    rotate_half_turn,
)

sizes = st.tuples(st.integers(8, 300), st.integers(8, 300))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@needs_reference
@pytest.mark.parametrize("case", CASES)
def test_the_processors_pixels_equal_the_public_ones(case: str) -> None:
    arrays = reference.values("openvla_tiny")
    pixels = processor_pixels(arrays[f"{case}/image"])
    assert pixels.shape == (1, 6, 224, 224) and pixels.dtype == torch.float32
    assert float((pixels - torch.from_numpy(arrays[f"{case}/pixel_values"])).abs().max()) <= 1e-6


def test_both_towers_see_the_same_picture_with_their_own_normalisation() -> None:
    pixels = processor_pixels(noise(224, 224))
    dinov2 = pixels[:, :3] * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    dinov2 = dinov2 + torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert torch.allclose(dinov2, pixels[:, 3:] * 0.5 + 0.5, atol=1e-6)


@given(size=sizes, seed=st.integers(0, 99))
def test_rotating_twice_gives_the_image_back(size: tuple[int, int], seed: int) -> None:
    image = noise(*size, seed)
    turned = rotate_half_turn(image)
    assert np.array_equal(turned[0, 0], image[-1, -1]) and np.array_equal(rotate_half_turn(turned), image)


def test_the_jpeg_round_trip_is_close_and_not_the_identity() -> None:
    y, x = np.mgrid[:64, :64]
    smooth = np.stack([2 * x, 2 * y, x + y], axis=2).astype(np.uint8)
    decoded = jpeg_round_trip(smooth)
    assert decoded.shape == smooth.shape and decoded.dtype == np.uint8
    difference = np.abs(decoded.astype(int) - smooth)
    assert 0 < difference.max() <= 12 and difference.mean() < 2


def lanczos_sample(line: np.ndarray, size: int, index: int) -> float:
    """One output sample of tf.image.resize(method=lanczos3, antialias=True) along a line, in float64."""
    scale = size / 224
    stretch = max(scale, 1.0)
    centre = (index + 0.5) * scale
    weights = []
    for source in range(size):
        x = (source + 0.5 - centre) / stretch
        if abs(x) >= 3:
            weights.append(0.0)
        elif x == 0:
            weights.append(1.0)
        else:
            weights.append(3 * math.sin(math.pi * x) * math.sin(math.pi * x / 3) / (math.pi * x) ** 2)
    return float(np.dot(weights, line) / np.sum(weights))


@settings(max_examples=25)
@given(size=sizes, seed=st.integers(0, 99), row=st.integers(0, 223), column=st.integers(0, 223))
def test_lanczos_resizing_follows_tensorflows_definition(
    size: tuple[int, int], seed: int, row: int, column: int
) -> None:
    image = noise(*size, seed)
    height, width = size
    lines = [lanczos_sample(image[:, x, 0].astype(float), height, row) for x in range(width)]
    expected = min(max(lanczos_sample(np.array(lines), width, column), 0.0), 255.0)
    assert abs(float(resize_lanczos(image)[row, column, 0]) - expected) <= 0.501


def crop_sample(image: np.ndarray, row: int, column: int) -> float:
    """One output sample of the crop by tf.image.crop_and_resize and convert_image_dtype, in float64."""
    side = math.sqrt(0.9)
    start = (1 - side) / 2

    def position(index: int) -> float:
        return start * 223 + index * (side * 223) / 223

    y, x = position(row), position(column)
    top, left = int(y), int(x)
    dy, dx = y - top, x - left
    square = image[top : top + 2, left : left + 2, 0].astype(float) / 255
    value = (1 - dy) * ((1 - dx) * square[0, 0] + dx * square[0, 1]) + dy * (
        (1 - dx) * square[1, 0] + dx * square[1, 1]
    )
    return value * 255.5


@given(seed=st.integers(0, 99), row=st.integers(0, 223), column=st.integers(0, 223))
def test_the_centre_crop_follows_tensorflows_definition(seed: int, row: int, column: int) -> None:
    image = noise(224, 224, seed)
    expected = crop_sample(image, row, column)
    found = int(centre_crop(image)[row, column, 0])
    assert found in {int(expected - 1e-3), int(expected + 1e-3)}


def test_a_flat_image_stays_flat_through_every_step() -> None:
    for value in (0, 7, 128, 255):
        image = np.full((256, 256, 3), value, np.uint8)
        assert (prepare_image(image, "libero") == value).all()


def test_an_upright_camera_is_prepared_as_liberos_without_the_rotation() -> None:
    image = noise(256, 256)
    upright = prepare_image(image, "centre_crop")
    assert np.array_equal(upright, prepare_image(rotate_half_turn(image), "libero"))
    assert not np.array_equal(upright, prepare_image(image, "libero"))


def test_preparation_none_leaves_the_image_alone() -> None:
    image = noise(40, 30)
    assert np.array_equal(prepare_image(image, "none"), image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_image_is_refused_by_shape_and_type(image: np.ndarray) -> None:
    for function in (processor_pixels, lambda image: prepare_image(image, "libero")):
        with pytest.raises(ImageError, match=r"expected \(H, W, 3\) of uint8"):
            function(image)


def test_an_unknown_preparation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected libero, centre_crop, none"):
        prepare_image(noise(8, 8), "bridge")
