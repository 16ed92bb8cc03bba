"""What the target itself does on the demonstrations' images: the data that a draft learns from.

A folder: `plan.json`, and one safetensors file for each episode, named after its task and number. An episode's file
is whole or absent, so a run that was stopped goes on where it stood.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from specvla_ros.errors import DataError
from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.training.held_out import HELD_OUT_EVERY, is_held_out
from specvla_ros.vla.config import PATCHES
from specvla_ros.vla.llama import DecoderLayer
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import BOS_ID

PLAN_FILE = "plan.json"
DTYPE = torch.float16
"""Features behind the final norm and projected patches stay far below its 65504, and it is finer than bfloat16."""


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """The steps of one episode that are regenerated; `file` is the demonstration file, `episode` its place there."""

    file: str
    episode: int
    steps: list[int]

    @property
    def held_out(self) -> bool:
        """Whether the episode is for validation: every twentieth of its file, the same that the target never saw."""
        return is_held_out(self.episode)

    def shard(self, directory: Path) -> Path:
        """Where its data lie. Files of a task have one name in every folder of demonstrations, so their paths count."""
        folder = hashlib.sha256(str(Path(self.file).parent).encode()).hexdigest()[:8]
        return directory / f"{Path(self.file).stem}-{folder}-{self.episode:05d}.safetensors"


@dataclass(frozen=True, slots=True)
class RegenerationPlan:
    """What a folder of regenerated data holds: from which target, which steps, and how their images were prepared.

    `target` is the `fingerprint` of the checkpoint's weights, so that a checkpoint trained further is another one.
    """

    checkpoint: str
    target: str
    preparation: str
    episodes: list[EpisodePlan]

    @property
    def frames(self) -> int:
        """Steps of all episodes together."""
        return sum(len(episode.steps) for episode in self.episodes)

    def write(self, directory: Path) -> None:
        """Write plan.json, at once and whole."""
        unfinished = directory / f".{PLAN_FILE}"
        unfinished.write_text(json.dumps(asdict(self)) + "\n")
        unfinished.rename(directory / PLAN_FILE)

    @classmethod
    def read(cls, directory: Path) -> RegenerationPlan:
        """Read plan.json.

        Raises:
            DataError: there is none, or it is not one.
        """
        path = directory / PLAN_FILE
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            episodes = [EpisodePlan(**episode) for episode in content.pop("episodes")]
            return cls(**content, episodes=episodes)
        except FileNotFoundError:
            raise DataError(f"{path} is missing; make regenerated data with: specvla train regenerate") from None
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path} is no plan of regenerated data ({error}); delete the folder and regenerate"
            ) from error


@dataclass(frozen=True, slots=True)
class RegeneratedFrame:
    """One step; n prompt ids, so the prefix has L = n + 256 positions.

    Attributes:
        input_ids: (n,) prompt ids, BOS first.
        patches: (256, hidden) projected patches.
        features: (L + 6, hidden) of the target after its final norm, at the prefix and the first six action tokens.
        tokens: (7,) the target's greedy answer.
    """

    input_ids: Tensor
    patches: Tensor
    features: Tensor
    tokens: Tensor


@dataclass(frozen=True, slots=True)
class RegeneratedBatch:
    """B steps, filled up at their ends to the longest.

    Attributes:
        input_ids: (B, m) prompt ids, then the action's first six, then filling.
        lengths: (B,) positions L of each prefix.
        patches: (B, 256, hidden).
        features: (B, m + 256, hidden).
        tokens: (B, 7).
    """

    input_ids: Tensor
    lengths: Tensor
    patches: Tensor
    features: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, frames: Sequence[RegeneratedFrame]) -> RegeneratedBatch:
        """Put frames of different prompts together."""
        sequences = [torch.cat([frame.input_ids, frame.tokens[:-1]]) for frame in frames]
        pad = torch.nn.utils.rnn.pad_sequence
        return cls(
            input_ids=pad(sequences, batch_first=True, padding_value=BOS_ID),
            lengths=torch.tensor([len(frame.input_ids) + PATCHES for frame in frames]),
            patches=torch.stack([frame.patches for frame in frames]),
            features=pad([frame.features for frame in frames], batch_first=True),
            tokens=torch.stack([frame.tokens for frame in frames]),
        )

    def to(self, device: torch.device) -> RegeneratedBatch:
        """The same on a device."""
        return RegeneratedBatch(
            self.input_ids.to(device),
            self.lengths.to(device),
            self.patches.to(device),
            self.features.to(device),
            self.tokens.to(device),
        )


class RegeneratedFrames(torch.utils.data.Dataset[RegeneratedFrame]):
    """The training or the held-out steps of a folder, read from the disk one by one.

    Raises:
        DataError: the folder is incomplete or has no such steps.
    """

    def __init__(self, directory: Path, *, held_out: bool) -> None:
        self.plan = RegenerationPlan.read(directory)
        chosen = [episode for episode in self.plan.episodes if episode.held_out == held_out]
        missing = [shard for episode in chosen if not (shard := episode.shard(directory)).is_file()]
        if missing:
            raise DataError(
                f"{directory}: {len(missing)} of {len(chosen)} episodes are not regenerated yet, first "
                f"{missing[0].name}; run specvla train regenerate again, it goes on where it stopped"
            )
        self._places = [(episode.shard(directory), row) for episode in chosen for row in range(len(episode.steps))]
        if not self._places:
            kind = f"held-out steps (every {HELD_OUT_EVERY}th episode of a file)" if held_out else "training steps"
            raise DataError(f"{directory} has no {kind}; regenerate more demonstrations")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> RegeneratedFrame:
        path, row = self._places[index]
        # Opening maps the file and reads no tensor; a handle for each of some thousand files would be too many.
        with safe_open(path, framework="pt") as file:
            return RegeneratedFrame(
                file.get_tensor("input_ids"), *(file.get_slice(n)[row] for n in ("patches", "features", "tokens"))
            )


def fingerprint(target: OpenVLA) -> str:
    """A hash of some of the target's weights, the same on every device and in every dtype that holds bfloat16."""
    layer = target.language_model.model.layers[-1]
    assert isinstance(layer, DecoderLayer) and isinstance(layer.mlp.down_proj, nn.Linear)
    digest = hashlib.sha256()
    for weight in (target.projector.fc3.weight, layer.self_attn.q_proj.weight, layer.mlp.down_proj.weight):
        digest.update(weight.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def frame_bytes(hidden_size: int, prompt_ids: int) -> int:
    """Disk space of one regenerated step: patches and features in two bytes a value."""
    positions = PATCHES + prompt_ids + PATCHES + ACTION_LENGTH - 1
    return positions * hidden_size * DTYPE.itemsize
