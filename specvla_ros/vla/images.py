"""From a camera image to the two towers' pixels, as OpenVLA computes them, without TensorFlow or torchvision."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from specvla_ros.errors import ConfigurationError, ImageError
from specvla_ros.vla.config import IMAGE_SIZE

PREPARATIONS = ("libero", "centre_crop", "none")
JPEG_QUALITY = 95
"""TensorFlow's default, with its 4:2:0 chroma."""
CROP_AREA = 0.9
LANCZOS_RADIUS = 3.0
BAND = 32
"""Output samples resized together: each needs but a few of the input samples, and neighbours need nearly the same."""
ALIGNMENT = 8
"""Bands begin at multiples of this: OpenBLAS then adds up the same partial sums as over the whole line."""

_DINOV2_MEAN, _DINOV2_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIGLIP_MEAN, _SIGLIP_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_MEAN = torch.tensor([_DINOV2_MEAN, _SIGLIP_MEAN])[:, :, None, None]
_STD = torch.tensor([_DINOV2_STD, _SIGLIP_STD])[:, :, None, None]

RGB = NDArray[np.uint8]


def prepare_image(image: RGB, preparation: str) -> RGB:
    """What a checkpoint's evaluation does to a camera image before the processor.

    Args:
        image: (H, W, 3) uint8 RGB.
        preparation: "libero" for OpenVLA's LIBERO checkpoints: rotate, JPEG round trip, Lanczos to 224, centre crop;
            "centre_crop" the same without the rotation, for an upright camera and a checkpoint that was trained with
            OpenVLA's image augmentation (its fine-tuning script's default); "none" leaves the image as it is.

    Raises:
        ImageError: not an (H, W, 3) uint8 image.
        ConfigurationError: no such preparation.
    """
    require_rgb(image)
    require_preparation(preparation)
    if preparation == "none":
        return image
    return centre_crop(prepare_uncropped(image) if preparation == "libero" else resize_lanczos(jpeg_round_trip(image)))


def prepare_uncropped(image: RGB) -> RGB:
    """What "libero" does before the centre crop: (H, W, 3) to (224, 224, 3) uint8, turned, once a JPEG, resized."""
    return resize_lanczos(jpeg_round_trip(rotate_half_turn(image)))


def processor_pixels(image: RGB) -> Tensor:
    """(H, W, 3) uint8 RGB to (1, 6, 224, 224) float32: DINOv2's normalisation on channels 0-2, SigLIP's on 3-5.

    Raises:
        ImageError: not an (H, W, 3) uint8 image.
    """
    require_rgb(image)
    if image.shape[:2] != (IMAGE_SIZE, IMAGE_SIZE):
        image = np.asarray(Image.fromarray(image).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    unit = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float().div_(255.0)
    return unit.sub(_MEAN).div_(_STD).view(1, 6, IMAGE_SIZE, IMAGE_SIZE)


def select_preparation(name: str, norm_stats_key: str) -> str:
    """The preparation called auto, which depends on what data the statistics are of, or one of `PREPARATIONS`.

    Raises:
        ConfigurationError: it is another.
    """
    if name == "auto":
        return "libero" if norm_stats_key.startswith("libero") else "none"
    require_preparation(name, ("auto", *PREPARATIONS))
    return name


def require_preparation(name: str, choices: tuple[str, ...] = PREPARATIONS) -> None:
    """Refuse a preparation that does not exist.

    Raises:
        ConfigurationError: it is none of `choices`.
    """
    if name not in choices:
        raise ConfigurationError(f"image preparation {name!r} is not one; expected {', '.join(choices)}")


def require_rgb(image: RGB) -> None:
    """Refuse what is not an (H, W, 3) uint8 image.

    Raises:
        ImageError: of another type, or another shape, or without pixels.
    """
    if not isinstance(image, np.ndarray):
        raise ImageError(f"the image is a {type(image).__name__}; expected a numpy array (H, W, 3) of uint8, RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(f"the image is {image.shape} of {image.dtype}; expected (H, W, 3) of uint8, RGB")


def rotate_half_turn(image: RGB) -> RGB:
    """LIBERO renders upside down and OpenVLA's LIBERO data is turned by 180 degrees (rows and columns reversed)."""
    return np.array(Image.fromarray(image).transpose(Image.Transpose.ROTATE_180))


def jpeg_round_trip(image: RGB) -> RGB:
    """Encode and decode: the training data went through JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return np.array(Image.open(buffer))


def resize_lanczos(image: RGB) -> RGB:
    """To 224 x 224 by Lanczos-3 with antialiasing (tf.image.resize), rounded half to even and clipped."""
    height, width, _ = image.shape
    resized = _separable(image.astype(np.float32), _lanczos_bands(height), _lanczos_bands(width))
    return np.clip(np.rint(resized), 0.0, 255.0).astype(np.uint8)


def centre_crop(image: RGB) -> RGB:
    """The middle nine tenths of the area, resized bilinearly to 224 x 224, as tf.image.crop_and_resize does."""
    height, width, _ = image.shape
    unit = image.astype(np.float32) / np.float32(255.0)
    cropped = np.clip(_separable(unit, _crop_bands(height), _crop_bands(width)), 0.0, 1.0)
    # tf.image.convert_image_dtype multiplies by 255.5 and cuts off the fraction.
    return (cropped * np.float32(255.5)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Band:
    """Some neighbouring output samples: (m, stop - start) weights of the input samples start .. stop - 1."""

    start: int
    stop: int
    weights: NDArray[np.float32]


def _separable(image: NDArray[np.float32], rows: tuple[Band, ...], columns: tuple[Band, ...]) -> NDArray[np.float32]:
    """(H, W, 3) to (224, 224, 3), first down the rows, then along the columns."""
    height, width, channels = image.shape
    # By torch: numpy's product of this size wakes a second pool of threads, which then spin beside torch's.
    lines = torch.from_numpy(image.reshape(height, width * channels))
    parts = [torch.from_numpy(band.weights) @ lines[band.start : band.stop] for band in rows]
    vertical = torch.cat(parts).numpy().reshape(-1, width, channels)
    return np.concatenate([band.weights @ vertical[:, band.start : band.stop] for band in columns], axis=1)


def _bands(weights: NDArray[np.float32]) -> tuple[Band, ...]:
    """The (224, size) weights of a resize without most of their zeros."""
    size = weights.shape[1]
    bands = []
    for first in range(0, IMAGE_SIZE, BAND):
        part = weights[first : first + BAND]
        used = np.flatnonzero(part.any(axis=0))
        start = int(used[0]) // ALIGNMENT * ALIGNMENT
        stop = min(-(-int(used[-1] + 1) // ALIGNMENT) * ALIGNMENT, size)
        bands.append(Band(start, stop, np.ascontiguousarray(part[:, start:stop])))
    return tuple(bands)


@cache
def _lanczos_bands(size: int) -> tuple[Band, ...]:
    """Each output sample's weights; the kernel widens when shrinking, centres are at half pixels."""
    scale = size / IMAGE_SIZE
    stretch = max(scale, 1.0)
    centres = (np.arange(IMAGE_SIZE) + 0.5) * scale
    distance = (np.arange(size)[None, :] + 0.5 - centres[:, None]) / stretch
    weights = np.where(np.abs(distance) < LANCZOS_RADIUS, np.sinc(distance) * np.sinc(distance / LANCZOS_RADIUS), 0.0)
    return _bands((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


@cache
def _crop_bands(size: int) -> tuple[Band, ...]:
    """Bilinear samples between the crop's corners, which lie on pixel centres."""
    side = CROP_AREA**0.5
    positions = ((1.0 - side) / 2.0 + side * np.arange(IMAGE_SIZE) / (IMAGE_SIZE - 1)) * (size - 1)
    return _bands(np.maximum(1.0 - np.abs(np.arange(size)[None, :] - positions[:, None]), 0.0).astype(np.float32))
