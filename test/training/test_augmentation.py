"""The batched crop and colours against the evaluation's own, and what a landmark becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from specvla_ros.training.augmentation import _crop, augment, centre
from specvla_ros.training.landmark_loss import GRID, LandmarkHead, patch_targets
from specvla_ros.vla.images import centre_crop, processor_pixels


def frames(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8))


def test_the_centre_crop_is_the_evaluations() -> None:
    images = frames(2)
    pixels, _ = centre(images, torch.zeros(2, 3, 5))
    wanted = torch.cat([processor_pixels(centre_crop(image)) for image in images.numpy()])
    # The evaluation rounds to uint8; a 255th is at most 1/(0.224 * 255) in normalised units.
    assert float((pixels - wanted).abs().max()) <= 2.0 / 255.0 / 0.224


def test_a_landmark_stays_on_its_pixel() -> None:
    images = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    images[0, 60:64, 150:154] = 255
    landmarks = torch.zeros(1, 3, 5)
    landmarks[..., 3], landmarks[..., 4] = 152 / 224, 62 / 224
    corners = torch.tensor([[0.04, 0.01]])
    bright = _crop(images, corners)[0, 0].gt(0.5).nonzero().float().add(0.5).mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    pixels, moved = augment(images, landmarks, generator)
    seen = pixels[0, 3].gt(0.0).nonzero().float().add(0.5).mean(dim=0)
    assert torch.allclose(moved[0, 0, 3:].flip(0) * 224, seen, atol=1.0)
    assert not torch.allclose(seen, bright)


def test_chance_is_the_generators() -> None:
    images, landmarks = frames(3), torch.rand(3, 3, 5)
    first, second = (augment(images, landmarks, torch.Generator().manual_seed(5)) for _ in range(2))
    other, _ = augment(images, landmarks, torch.Generator().manual_seed(6))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other)
    assert first[0].shape == (3, 6, 224, 224) and first[0].isfinite().all()


def test_grey_stays_grey_and_colours_stay_in_range() -> None:
    grey = torch.randint(0, 256, (4, 224, 224, 1), dtype=torch.uint8).expand(-1, -1, -1, 3).contiguous()
    pixels, _ = augment(grey, torch.zeros(4, 3, 5), torch.Generator().manual_seed(0))
    rgb = pixels[:, 3:] * 0.5 + 0.5
    assert float((rgb - rgb.mean(dim=1, keepdim=True)).abs().max()) < 2e-2
    assert float(rgb.min()) >= 0.0 and float(rgb.max()) <= 1.0


def test_the_pointing_target_sits_on_the_landmarks_patch() -> None:
    targets = patch_targets(torch.tensor([[(3 + 0.5) / GRID, (9 + 0.5) / GRID]]))
    assert int(targets.argmax()) == 9 * GRID + 3
    assert float(targets.sum()) == pytest.approx(1.0, abs=1e-5)


def test_unknown_landmarks_cost_nothing() -> None:
    torch.manual_seed(0)
    head = LandmarkHead(16)
    prompt_feature, patches = torch.randn(2, 16, requires_grad=True), torch.randn(2, 256, 16)
    losses = head.losses(prompt_feature, patches, torch.full((2, 3, 5), torch.nan), torch.zeros(2))
    assert losses.pointing.item() == losses.positions.item() == losses.seen.item() == 0.0
    (losses.pointing + losses.positions + losses.seen).backward()
    assert prompt_feature.grad is not None and prompt_feature.grad.isfinite().all()


def test_a_landmark_outside_the_image_is_located_but_not_pointed_at() -> None:
    torch.manual_seed(0)
    landmarks = torch.rand(2, 3, 5)
    landmarks[..., 3] = 1.2
    losses = LandmarkHead(16).losses(torch.randn(2, 16), torch.randn(2, 256, 16), landmarks, torch.zeros(2))
    assert losses.pointing.item() == losses.seen.item() == 0.0 and losses.positions.item() > 0.0


def test_the_opening_is_learned_from_the_feature_of_the_prompt() -> None:
    torch.manual_seed(0)
    head, prompt_feature, openings = LandmarkHead(16), torch.randn(2, 16), torch.tensor([0.0, 0.08])
    unknown = torch.full((2, 3, 5), torch.nan)
    optimiser = torch.optim.Adam(head.opening.parameters(), 0.1)
    losses = []
    for _ in range(100):
        losses.append(head.losses(prompt_feature, torch.randn(2, 256, 16), unknown, openings).opening)
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < 0.1 * losses[0]
