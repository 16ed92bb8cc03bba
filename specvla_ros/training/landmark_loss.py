"""What a small target learns beside its actions: where gripper, object and destination are, and the gripper's opening.

A behaviour-cloning loss alone seldom makes a few million weights look at the right object. This loss does, through
a head that exists in training only: its weights are in no checkpoint that is shipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.training.demonstrations import LANDMARKS
from specvla_ros.vla.config import IMAGE_SIZE, PATCH_SIZE

GRID = IMAGE_SIZE // PATCH_SIZE
QUERY_SIZE = 64
"""Width of the queries and keys that point."""
SIGMA = 0.7
"""Width of the target around a landmark, in patches."""
POSITION_SCALE = 10.0
"""Positions are learned in decimetres, so that the arm's reach spans a few units."""
POSITION_AIM = 0.1
"""Decimetres within which an error's gradient fades: a grasp forgives a centimetre, and one further off is missed."""
OPENING_SCALE, OPENING_AIM = 25.0, 0.2
"""Units a metre in which the opening is learned, two for an open hand, and those within which its gradient fades."""


@dataclass(frozen=True, slots=True)
class LandmarkLosses:
    """Losses of one batch, and how often the head points right.

    Attributes:
        pointing: cross-entropy over the patches, averaged over the landmarks in view.
        positions: smooth L1 of the positions, in decimetres, averaged over the landmarks that are known.
        seen: the same, read off the patches in which the landmarks are, averaged over those in view.
        opening: smooth L1 of the distance between the fingers, in units of four centimetres.
        metres: mean distance of the positions from the truth; NaN where none is known.
        accuracy: share of the landmarks in view whose likeliest patch is at most one patch away; NaN without any.
    """

    pointing: Tensor
    positions: Tensor
    seen: Tensor
    opening: Tensor
    metres: Tensor
    accuracy: Tensor


class LandmarkHead(nn.Module):
    """Points at each landmark among the projected patches, and says where it is in the world.

    It says so twice: from the feature at the end of the prompt, because actions follow from that, and from the patches
    themselves, so that vision learns how far away things are before the language model knows where to look.

    Args:
        hidden_size: width of the language model.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.queries = nn.Linear(hidden_size, len(LANDMARKS) * QUERY_SIZE)
        self.keys = nn.Linear(hidden_size, QUERY_SIZE)
        self.positions = nn.Linear(hidden_size, len(LANDMARKS) * 3)
        self.seen = nn.Linear(hidden_size, 3)
        self.opening = nn.Linear(hidden_size, 1)

    def forward(self, prompt_feature: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(B, hidden) and (B, 256, hidden) to (B, 3, 256) logits over patches and (B, 3, 3) positions [dm]."""
        keys = self.keys(patches)
        queries = self.queries(prompt_feature).unflatten(1, (len(LANDMARKS), -1))
        logits = queries @ keys.transpose(1, 2) * keys.shape[-1] ** -0.5
        return logits.float(), self.positions(prompt_feature).unflatten(1, (len(LANDMARKS), 3)).float()

    def losses(self, prompt_feature: Tensor, patches: Tensor, landmarks: Tensor, openings: Tensor) -> LandmarkLosses:
        """Compare with what is known of the cropped frames.

        Args:
            landmarks: (B, 3, 5) x, y, z [m], column, row; NaN where unknown.
            openings: (B,) metres between the fingers.
        """
        logits, positions = self(prompt_feature, patches)
        places = landmarks[..., 3:]
        in_view = ((places >= 0.0) & (places < 1.0)).all(dim=-1)
        # NaN times a weight of zero stays NaN, so what is unknown is filled before it is weighed.
        targets = patch_targets(torch.where(in_view[..., None], places, 0.5))
        entropy = -(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1)
        known = landmarks[..., :3].isfinite().all(dim=-1)
        world = POSITION_SCALE * torch.where(known[..., None], landmarks[..., :3], 0.0)
        seen = self.seen(targets.to(patches.dtype) @ patches).float()
        wanted = _relative_positions(world)
        metres = (positions - wanted).norm(dim=-1) / POSITION_SCALE
        opening = self.opening(prompt_feature)[:, 0].float()
        near = _patches_apart(logits.argmax(dim=-1), places) <= 1
        return LandmarkLosses(
            pointing=_mean_where(entropy, in_view),
            positions=_mean_where(_off(positions, wanted), known),
            seen=_mean_where(_off(seen, world), known & in_view),
            opening=F.smooth_l1_loss(opening, OPENING_SCALE * openings, beta=OPENING_AIM),
            metres=(metres * known).sum() / known.sum(),
            accuracy=(near & in_view).sum() / in_view.sum(),
        )


def patch_targets(places: Tensor) -> Tensor:
    """(..., 2) column and row fractions to (..., 256) Gaussian weights over the patches, row by row; the sum is 1."""
    centres = torch.arange(GRID, device=places.device) + 0.5
    distance = (places[..., None] * GRID - centres) / SIGMA
    columns, rows = (torch.softmax(-0.5 * distance[..., axis, :].square(), dim=-1) for axis in (0, 1))
    return (rows[..., :, None] * columns[..., None, :]).flatten(-2)


def _off(positions: Tensor, wanted: Tensor) -> Tensor:
    """(B, 3) smooth L1 of (B, 3, 3) positions."""
    return F.smooth_l1_loss(positions, wanted, reduction="none", beta=POSITION_AIM).mean(dim=-1)


def _relative_positions(positions: Tensor) -> Tensor:
    """(B, 3, 3) world positions to: the gripper's, then object and destination as seen from it."""
    gripper = positions[:, :1]
    return torch.cat([gripper, positions[:, 1:] - gripper], dim=1)


def _patches_apart(chosen: Tensor, places: Tensor) -> Tensor:
    """Larger of the column and row distance, in patches, between patch numbers and places (..., 2)."""
    cells = torch.stack([chosen % GRID, chosen // GRID], dim=-1)
    return (cells - (places * GRID).floor()).abs().amax(dim=-1)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values under the mask; 0 when it is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)
