"""What is trained: the target with its landmark head, the losses, and how good it is on frames it never saw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from specvla_ros.policy import ACTION_DIMENSIONS
from specvla_ros.training.augmentation import centre
from specvla_ros.training.batched import PromptTable, TeacherForced, teacher_forced
from specvla_ros.training.batches import Batch
from specvla_ros.training.landmark_loss import LandmarkHead, LandmarkLosses
from specvla_ros.training.small_target import build_target
from specvla_ros.vla.config import ACTION_BINS, OpenVLAConfig

POINTING_WEIGHT = 0.3
POSITIONS_WEIGHT = 3.0
SEEN_WEIGHT = 1.0
OPENING_WEIGHT = 1.0
"""The landmark losses beside the action tokens' cross-entropy, which is 1."""
TOKEN_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 4.0)
"""Of the action's dimensions: a gripper that closes or opens at the wrong time fails the episode."""

MOTION_SPREAD, FIXED_SPREAD = 6.0, 0.5
"""Bins, for a dimension that moves by degrees and for one that knows few values (the gripper, or what never moved). An
expert's actions pile up at its top speed and at rest; a narrow aim lets a model that is not sure yet choose
one of those heaps, and greedy decoding then drives the arm by fits and starts."""
BLUR = 12.0
"""Bins: standard deviation by which the tokens that are read are moved."""
EXPECTATION_SCALE = 16.0
"""Bins by which the mean of a token's distribution must be off to cost as much as a unit of entropy."""

VALIDATION_COLUMNS = (
    "validation_loss",
    "validation_pointing",
    "validation_centimetres",
    *(f"accuracy_{name}" for name in ACTION_DIMENSIONS),
    *(f"deviation_{name}" for name in ACTION_DIMENSIONS),
)


@dataclass(frozen=True, slots=True)
class Losses:
    """Of one batch; `total` is what is minimised, `tokens` the weighted mean cross-entropy of the seven action tokens.

    A token's aim is its `neighbourhood`, so `tokens` does not fall to 0 but to that one's entropy.
    """

    total: Tensor
    tokens: Tensor
    landmarks: LandmarkLosses


class Learner(nn.Module):
    """The target and the landmark head, trained together.

    Args:
        prompts: of every instruction in the data.
        moves: (7,) whether a dimension moves by degrees.
    """

    def __init__(self, config: OpenVLAConfig, prompts: PromptTable, moves: Tensor) -> None:
        super().__init__()
        self.target = build_target(config)
        self.head = LandmarkHead(config.llama.hidden_size)
        self.register_buffer("spreads", torch.where(moves, MOTION_SPREAD, FIXED_SPREAD), persistent=False)
        self.register_buffer("token_weights", torch.tensor(TOKEN_WEIGHTS) / sum(TOKEN_WEIGHTS), persistent=False)
        self.register_buffer("prompt_ids", prompts.ids, persistent=False)
        self.register_buffer("prompt_lengths", prompts.lengths, persistent=False)

    spreads: Tensor
    token_weights: Tensor
    prompt_ids: Tensor
    prompt_lengths: Tensor

    def forward(self, pixels: Tensor, landmarks: Tensor, batch: Batch, read: Tensor) -> Losses:
        """Losses of a batch by its cropped and normalised images; `read` is what the model reads of the tokens."""
        return self.losses(self._run(pixels, read, batch.languages), landmarks, batch)

    def losses(self, output: TeacherForced, landmarks: Tensor, batch: Batch) -> Losses:
        """The weighted sum and its parts."""
        wanted = batch.tokens - self.target.config.first_action_id
        logits, wanted = output.logits.float().flatten(0, 1), wanted.flatten()
        aims = neighbourhood(wanted, self.spreads.repeat(len(batch.tokens)))
        entropies = F.cross_entropy(logits, aims, reduction="none").view(batch.tokens.shape)
        entropy = (entropies.mean(dim=0) * self.token_weights).sum()
        off = F.smooth_l1_loss(expected_bins(logits) / EXPECTATION_SCALE, wanted / EXPECTATION_SCALE)
        found = self.head.losses(output.prompt_feature, output.patches, landmarks, batch.openings)
        marks = (
            POINTING_WEIGHT * found.pointing
            + POSITIONS_WEIGHT * found.positions
            + SEEN_WEIGHT * found.seen
            + OPENING_WEIGHT * found.opening
        )
        return Losses(entropy + off + marks, entropy, found)

    @torch.inference_mode()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """`VALIDATION_COLUMNS` over held-out batches, centre crop, each token predicted after the recorded ones.

        A deviation is in bins. Columns that the data says nothing about are left out.
        """
        device = self.prompt_ids.device
        sizes, entropies, pointing, metres, off = [], [], [], [], []
        for batch in (item.to(device) for item in batches):
            pixels, landmarks = centre(batch.images, batch.landmarks)
            output = self._run(pixels, batch.tokens, batch.languages)
            losses = self.losses(output, landmarks, batch)
            chosen = output.logits.argmax(dim=-1) + self.target.config.first_action_id
            sizes.append(len(batch.tokens))
            entropies.append(float(losses.tokens))
            pointing.append(float(losses.landmarks.accuracy))
            metres.append(float(losses.landmarks.metres))
            off.append((chosen - batch.tokens).abs().float())
        if not sizes:
            return {}
        deviations = torch.cat(off)
        accuracies = (deviations == 0.0).float().mean(dim=0).tolist()
        row = {"validation_loss": float(np.average(entropies, weights=sizes))}
        if np.isfinite(pointing).any():
            row["validation_pointing"] = float(np.nanmean(pointing))
        if np.isfinite(metres).any():
            row["validation_centimetres"] = 100.0 * float(np.nanmean(metres))
        row |= {f"accuracy_{name}": value for name, value in zip(ACTION_DIMENSIONS, accuracies, strict=True)}
        means = deviations.mean(dim=0).tolist()
        return row | {f"deviation_{name}": value for name, value in zip(ACTION_DIMENSIONS, means, strict=True)}

    def _run(self, pixels: Tensor, tokens: Tensor, languages: Tensor) -> TeacherForced:
        return teacher_forced(self.target, pixels, self.prompt_ids[languages], self.prompt_lengths[languages], tokens)


def neighbourhood(bins: Tensor, spreads: Tensor) -> Tensor:
    """(n,) bins and standard deviations to (n, 256) distributions around them.

    A bin is a third of a millimetre of motion: to be one off is next to right, and a loss that knows this learns from
    fewer frames.
    """
    distance = (torch.arange(ACTION_BINS, device=bins.device) - bins[:, None]) / spreads[:, None]
    return torch.softmax(-0.5 * distance.square(), dim=1)


def blur(tokens: Tensor, action_ids: range, generator: torch.Generator) -> Tensor:
    """(B, 7) action token ids as a model in training reads them: moved by some bins, and half of them by any number.

    The exact tokens of an action's first dimensions name the frame they come from. A model that reads them learns the
    later ones by heart, does without the picture, and is lost as soon as its own first token is a bin off.
    """
    moved = tokens + (BLUR * torch.randn(tokens.shape, generator=generator)).round().long()
    anything = torch.randint(action_ids.start, action_ids.stop, tokens.shape, generator=generator)
    chosen = torch.where(torch.rand(tokens.shape, generator=generator) < 0.5, anything, moved)
    return chosen.clamp(action_ids.start, action_ids.stop - 1)


def expected_bins(logits: Tensor) -> Tensor:
    """(n, 256) logits to the (n,) means of their distributions, in bins."""
    return logits.softmax(dim=1) @ torch.arange(ACTION_BINS, device=logits.device, dtype=logits.dtype)


@torch.no_grad()
def move_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the model's: average = decay * average + (1 - decay) * model."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)
