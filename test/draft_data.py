"""Small demonstration files and a small random target, for the tests of draft training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from untrained import _norm_stats

from specvla_ros.sim.libero import Task
from specvla_ros.training.demonstrations import Demonstration, append_demonstration, demonstration_file
from specvla_ros.vla.checkpoint import write_checkpoint
from specvla_ros.vla.config import LlamaConfig, OpenVLAConfig, VisionConfig
from specvla_ros.vla.model import OpenVLA
from specvla_ros.vla.prompt import write_small_tokenizer

LANGUAGES = ("pick up the bowl", "push the plate to the front of the stove")


def write_target(directory: Path, seed: int = 0) -> None:
    """A target of hidden size 16 whose answers depend strongly on its input, in OpenVLA's layout."""
    config = OpenVLAConfig(
        dinov2=VisionConfig(width=8, depth=2, heads=2, mlp_width=32, prefix_tokens=5, layer_scale=True),
        siglip=VisionConfig(width=8, depth=2, heads=2, mlp_width=29, prefix_tokens=0, layer_scale=False),
        llama=LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2),
    )
    torch.manual_seed(seed)
    target = OpenVLA(config)
    for parameter in target.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tensors = {name: tensor.detach().float() for name, tensor in target.state_dict().items()}
    write_checkpoint(directory, config.to_dict(), tensors, _norm_stats(), extra_files=write_small_tokenizer)


def write_demonstrations(directory: Path, episodes: int, steps: int) -> None:
    """One file for each of two tasks; the second step of every episode does not move."""
    random = np.random.default_rng(0)
    for index, language in enumerate(LANGUAGES):
        task = Task("libero_small", index, language, Path(language.replace(" ", "_") + ".bddl"), Path("none"))
        for seed in range(episodes):
            actions = random.uniform(-1, 1, (steps, 7))
            actions[:, 6] = -1
            actions[1, :6] = 0
            demonstration = Demonstration(
                language=language,
                images=random.integers(0, 256, (steps, 32, 32, 3), dtype=np.uint8),
                actions=actions,
                states=np.zeros((steps, 4)),
                end_effector=np.zeros((steps, 6)),
                gripper_opening=np.zeros(steps),
                seed=seed,
            )
            append_demonstration(demonstration_file(directory, task), task, demonstration)
