"""What regenerating and draft training need, from the shapes alone: nothing is allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor, nn

from specvla_ros.memory import module_bytes
from specvla_ros.policy import ACTION_LENGTH
from specvla_ros.speculative.eagle import EagleHead
from specvla_ros.training.draft_loss import draft_loss, embed_batch
from specvla_ros.training.regenerated import DTYPE, RegeneratedBatch, frame_bytes
from specvla_ros.vla.config import ACTION_BINS, PATCHES, OpenVLAConfig
from specvla_ros.vla.model import OpenVLA

PROMPT_IDS = 28
"""Of a long LIBERO instruction; most have about 21."""
MANY_STEPS = 100_000
"""About what the moving steps of two LIBERO suites come to."""
OPTIMIZER_COPIES = 4
"""Of each trained weight, in float32: itself, its gradient and AdamW's two moments."""


@dataclass(frozen=True, slots=True)
class Need:
    """One line of the estimate; `where` is GPU or disk."""

    what: str
    where: str
    bytes: int


def estimate_needs(batch_size: int = 16, unroll: int = 1, config: OpenVLAConfig | None = None) -> list[Need]:
    """Memory and disk for a target of `config`'s sizes, the released 7B's when None.

    Draft training's activations are what autograd really keeps in a forward on the meta device, in float32; autocast
    to bfloat16 keeps about half of that.
    """
    config = config or OpenVLAConfig()
    with torch.device("meta"):
        target = OpenVLA(config).to(torch.bfloat16)
        head = EagleHead(config.llama).to("meta")
    hidden, llama = config.llama.hidden_size, config.llama
    positions = PROMPT_IDS + PATCHES + ACTION_LENGTH - 1
    each = frame_bytes(hidden, PROMPT_IDS)
    cache = 2 * llama.num_hidden_layers * hidden * positions * batch_size * torch.bfloat16.itemsize
    trained = sum(parameter.numel() for parameter in head.parameters())
    kept = _kept(head, batch_size, unroll, llama.vocab_size)
    return [
        Need("target, bfloat16", "GPU", module_bytes(target)),
        Need(f"regenerate: keys and values of {batch_size} images", "GPU", cache),
        Need("draft training: head, gradients and AdamW, float32", "GPU", trained * OPTIMIZER_COPIES * 4),
        Need(f"draft training: batch of {batch_size}, unroll {unroll}", "GPU", kept),
        Need("regenerated data, one step", "disk", each),
        Need(f"regenerated data, {MANY_STEPS} steps", "disk", each * MANY_STEPS),
        Need("the draft, float16", "disk", trained * 2),
    ]


def estimate_table(needs: list[Need]) -> Table:
    """For the terminal."""
    table = Table("what", "where", "GB", title="estimate from the shapes")
    for need in needs:
        table.add_row(need.what, need.where, f"{need.bytes / 1e9:.3f}")
    return table


def _kept(head: EagleHead, batch_size: int, unroll: int, vocabulary: int) -> int:
    """Bytes of a batch and of what its forward keeps for the backward."""
    hidden = head.config.hidden_size
    with torch.device("meta"):
        embedding = nn.Embedding(vocabulary, hidden, dtype=torch.bfloat16).requires_grad_(False)
        output_weight = torch.empty(ACTION_BINS, hidden)
        length = PROMPT_IDS + ACTION_LENGTH - 1
        batch = RegeneratedBatch(
            input_ids=torch.empty(batch_size, length, dtype=torch.long),
            lengths=torch.empty(batch_size, dtype=torch.long),
            patches=torch.empty(batch_size, PATCHES, hidden, dtype=DTYPE),
            features=torch.empty(batch_size, length + PATCHES, hidden, dtype=DTYPE),
            tokens=torch.empty(batch_size, ACTION_LENGTH, dtype=torch.long),
        )
    embeddings, features = embed_batch(embedding, batch), batch.features.float()
    storages = {}

    def keep(tensor: Tensor) -> Tensor:
        # Held, so that no other storage gets the same key; views of one storage count once.
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        draft_loss(head, output_weight, embeddings, features, batch, unroll=unroll, logits_weight=0.1)
    for tensor in (batch.patches, batch.features, embeddings, features):
        keep(tensor)
    for parameter in head.parameters():
        storages.pop(parameter.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in storages.values())
