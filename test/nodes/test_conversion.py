from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image

from specvla_ros.errors import ImageError
from specvla_ros.nodes import conversion
from specvla_ros.nodes.conversion import CHANNELS, compressed_to_rgb, image_to_rgb, rgb_to_compressed, rgb_to_image

needs_cv_bridge = pytest.mark.skipif(
    conversion.CvBridge is None, reason="cv_bridge is in no package registry; it comes with a ROS 2 installation"
)
CONVERTERS = [conversion.opencv_to_rgb, pytest.param(conversion.cv_bridge_to_rgb, marks=needs_cv_bridge)]


def encode(rgb: np.ndarray, encoding: str, padding: int, bigendian: int) -> Image:
    """A message of any encoding, with `padding` bytes behind each row."""
    height, width, _ = rgb.shape
    alpha = np.full((height, width, 1), 77, np.uint8)
    pixels = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], axis=2),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], axis=2),
        "mono8": rgb[..., :1],
    }[encoding]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=255)
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=bigendian, step=rows.shape[1])
    message.data = rows.tobytes()
    return message


@pytest.mark.parametrize("convert", CONVERTERS)
@given(
    encoding=st.sampled_from(sorted(CHANNELS)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    padding=st.integers(0, 5),
    bigendian=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_every_encoding_step_and_byte_order_gives_the_same_pixels(
    convert: object, encoding: str, size: tuple[int, int], padding: int, bigendian: int, seed: int
) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    if encoding == "mono8":
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
    message = encode(rgb, encoding, padding, bigendian)
    conversion.check_image(message)
    assert np.array_equal(convert(message), rgb)


@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 99))
def test_an_array_survives_the_way_to_a_message_and_back(size: tuple[int, int], seed: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.array_equal(image_to_rgb(rgb_to_image(rgb)), rgb)


def test_bytes_behind_the_last_row_are_no_pixels() -> None:
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = rgb_to_image(rgb)
    message.data = [*message.data, 7, 7]
    assert np.array_equal(image_to_rgb(message), rgb)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"encoding": "16UC1"}, "'16UC1' of 4 x 2, step 12: the encoding is not supported; expected one of rgb8"),
        ({"width": 0}, "it has no pixels"),
        ({"height": 0}, "it has no pixels"),
        ({"step": 11}, "a row needs at least 12 bytes"),
        ({"height": 3}, "24 bytes of data, expected 36"),
    ],
)
def test_an_image_that_cannot_be_one_is_refused_by_encoding_and_size(fields: dict, part: str) -> None:
    message = rgb_to_image(np.zeros((2, 4, 3), np.uint8))
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=part):
        image_to_rgb(message)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_compressed_image_is_decoded_to_rgb(ending: str) -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[..., 0] = 200
    _, data = cv2.imencode(ending, rgb[..., ::-1])
    decoded = compressed_to_rgb(CompressedImage(format=ending[1:], data=data.tobytes()))
    assert np.abs(decoded.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("data", [b"", b"not a picture"])
def test_compressed_data_that_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="cannot be decoded; expected JPEG or PNG"):
        compressed_to_rgb(CompressedImage(format="jpeg", data=data))


def test_a_compressed_picture_comes_back_nearly_as_it_was_and_smaller_with_less_quality() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :, 0], picture[:, 32:, 2] = np.arange(64) * 4, 200
    fine, coarse = rgb_to_compressed(picture, 95), rgb_to_compressed(picture, 20)
    assert np.abs(compressed_to_rgb(fine).astype(int) - picture).mean() < 6.0
    assert fine.format == "jpeg" and len(coarse.data) < len(fine.data)
