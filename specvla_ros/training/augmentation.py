"""Random crop and colour of a batch of training frames at once, as OpenVLA fine-tunes for LIBERO or more weakly."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from specvla_ros.vla.images import CROP_AREA

BRIGHTNESS = 0.2
CONTRAST = 0.2
SATURATION = 0.2
"""Largest part that is added or taken away."""
HUE = 0.05
"""Largest turn of the hue, in whole turns."""

_SIDE = CROP_AREA**0.5
_MEAN = torch.tensor([0.485, 0.456, 0.406, 0.5, 0.5, 0.5])
_STD = torch.tensor([0.229, 0.224, 0.225, 0.5, 0.5, 0.5])
_GREY = torch.tensor([0.299, 0.587, 0.114])
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = torch.linalg.inv(_TO_YIQ)


def augment(
    frames: Tensor, landmarks: Tensor, generator: torch.Generator, strength: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Crop each frame somewhere, change its colours, and normalise it for the two vision towers.

    Args:
        frames: (B, 224, 224, 3) uint8 RGB, prepared as for evaluation but not cropped.
        landmarks: (B, 3, 5); the last two numbers are column and row as fractions of the frame.
        generator: on the CPU; the same state gives the same change on every device.
        strength: part of OpenVLA's ranges that is used; at 0 this is `centre`.

    Returns:
        (B, 6, 224, 224) pixels and the landmarks with column and row in the cropped frame.
    """
    corners = (0.5 + strength * (torch.rand(len(frames), 2, generator=generator) - 0.5)) * (1.0 - _SIDE)
    corners = corners.to(frames.device)
    cropped = _crop(frames, corners)
    matrix, offset = _colour_change(cropped, generator, strength)
    pixels = torch.baddbmm(offset[:, :, None], matrix, cropped.flatten(2))
    return _normalised(pixels.clamp_(0.0, 1.0).view_as(cropped)), _move(landmarks, corners)


def centre(frames: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """The same without chance: evaluation's centre crop, colours as they are."""
    corners = torch.full((len(frames), 2), (1.0 - _SIDE) / 2.0, device=frames.device)
    return _normalised(_crop(frames, corners)), _move(landmarks, corners)


def _crop(frames: Tensor, corners: Tensor) -> Tensor:
    """(B, 224, 224, 3) uint8 to (B, 3, 224, 224) of 0..1: a square of area 0.9 from `corners` (B, 2: column, row).

    Bilinear, and the crop's corners lie on pixel centres, as in specvla_ros.vla.images.centre_crop.
    """
    unit = frames.permute(0, 3, 1, 2).float().div_(255.0)
    grid = torch.zeros(len(frames), 2, 3, device=frames.device)
    grid[:, 0, 0] = grid[:, 1, 1] = _SIDE
    grid[:, :, 2] = 2.0 * corners + _SIDE - 1.0
    return F.grid_sample(unit, F.affine_grid(grid, list(unit.shape), align_corners=True), align_corners=True)


def _move(landmarks: Tensor, corners: Tensor) -> Tensor:
    """Column and row from fractions of the frame to fractions of the crop."""
    places = (landmarks[..., 3:] - corners[:, None]) / _SIDE
    return torch.cat([landmarks[..., :3], places], dim=-1)


def _colour_change(images: Tensor, generator: torch.Generator, strength: float) -> tuple[Tensor, Tensor]:
    """Brightness, contrast, saturation and hue as one matrix (B, 3, 3) and one offset (B, 3) on RGB.

    OpenVLA clips between the four steps; here they are one map, clipped once: only pixels at the ends of the range
    differ. The hue turns in YIQ instead of HSV, which is the same turn of the colour circle to first order.
    """
    chance = strength * (2.0 * torch.rand(len(images), 4, generator=generator) - 1.0)
    device, chance = images.device, chance.to(images.device)
    brighter = chance[:, 0] * BRIGHTNESS
    contrast = 1.0 + chance[:, 1] * CONTRAST
    saturation = 1.0 + chance[:, 2] * SATURATION
    angle = chance[:, 3] * HUE * 2.0 * math.pi
    turn = torch.zeros(len(images), 3, 3, device=device)
    turn[:, 0, 0] = 1.0
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1], turn[:, 1, 2] = angle.sin(), -angle.sin()
    hue = _FROM_YIQ.to(device) @ turn @ _TO_YIQ.to(device)
    grey = _GREY.to(device).expand(3, 3)
    mix = saturation[:, None, None] * torch.eye(3, device=device) + (1.0 - saturation)[:, None, None] * grey
    matrix = hue @ mix
    # tf.image.adjust_contrast pivots on each channel's mean over the image.
    means = images.mean(dim=(2, 3)) + brighter[:, None]
    before = contrast[:, None] * brighter[:, None] + (1.0 - contrast)[:, None] * means
    return contrast[:, None, None] * matrix, (matrix @ before[:, :, None])[:, :, 0]


def _normalised(pixels: Tensor) -> Tensor:
    """(B, 3, 224, 224) of 0..1 to (B, 6, 224, 224): DINOv2's normalisation, then SigLIP's."""
    mean, std = (values.to(pixels.device)[:, None, None] for values in (_MEAN, _STD))
    return torch.cat([pixels, pixels], dim=1).sub_(mean).div_(std)
