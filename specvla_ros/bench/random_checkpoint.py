"""A checkpoint with the layout and size of a real one and random weights: it takes as long, and knows nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from specvla_ros.bench.sizes import random_head, random_target
from specvla_ros.gpu_memory import free_memory
from specvla_ros.shipped import shipped_checkpoint
from specvla_ros.training.draft import write_draft
from specvla_ros.vla.checkpoint import read_norm_stats, write_checkpoint
from specvla_ros.vla.config import OpenVLAConfig
from specvla_ros.vla.prompt import write_small_tokenizer


def write_random_checkpoint(directory: Path, config: OpenVLAConfig, device: str) -> None:
    """In bfloat16, with a learned draft beside; 7B takes 16 GB on the disk and on the device that draws the numbers.

    Its actions have the size of LIBERO's, and its tokenizer is the small one of the package.
    """
    target = random_target(config, torch.bfloat16, torch.device(device))
    tensors = {name: tensor.cpu() for name, tensor in target.state_dict().items()}
    head = random_head(target)
    del target
    free_memory()
    write_checkpoint(directory, config.to_dict(), tensors, read_norm_stats(shipped_checkpoint()), write_small_tokenizer)
    (directory / "draft").mkdir()
    write_draft(directory / "draft", config.llama, head)
