"""Drafters by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from specvla_ros.errors import CheckpointError, ConfigurationError
from specvla_ros.policy import ACTION_LENGTH, PLAIN
from specvla_ros.speculative.decode import MAX_TREE_NODES
from specvla_ros.speculative.drafter import Drafter
from specvla_ros.speculative.eagle import EagleDrafter, EagleHead, TreeConfig
from specvla_ros.speculative.history import HoldDrafter, LinearDrafter
from specvla_ros.speculative.merged import MergedDrafter
from specvla_ros.speculative.plain import NoDrafter
from specvla_ros.vla.checkpoint import load_draft_tensors, read_config, resolve_checkpoint
from specvla_ros.vla.config import LlamaConfig
from specvla_ros.vla.fingerprint import require_sha256
from specvla_ros.vla.llama import fuse_projections
from specvla_ros.vla.model import OpenVLA

LEGACY_KEY = "legacy_draft"
"""Of a draft's config.json; see `TreeConfig.legacy`."""
WITHOUT_WEIGHTS = (PLAIN, "hold", "linear")


def build_drafter(
    name: str, target: OpenVLA, capacity: int, tree: TreeConfig, checkpoint: Path | None = None, sha256: str = ""
) -> Drafter:
    """The drafter called `name`: none, hold, linear, eagle, a draft's directory or hub name, or several joined by +.

    Args:
        checkpoint: the target's directory, whose folder `draft` is what `eagle` means.
        sha256: of a learned draft's weights, see `weights_sha256`; not checked when empty.

    Raises:
        ConfigurationError: there is no such draft, `none` is joined with another, one is named twice, the checkpoint
            brings no draft, or the trees are together too large.
        CheckpointError: a draft checkpoint cannot be loaded.
    """
    located = locate_drafts(name, checkpoint)
    _require_room(name, list(located.values()), tree)
    drafts = [_build_one(part, directory, target, capacity, tree, sha256) for part, directory in located.items()]
    return drafts[0] if len(drafts) == 1 else MergedDrafter(drafts)


def locate_drafts(name: str, checkpoint: Path | None) -> dict[str, Path | None]:
    """The drafts that `build_drafter` would join, and where the learned ones lie; a hub name is downloaded.

    Raises:
        ConfigurationError, CheckpointError: see `build_drafter`; what lies in the directories is not looked at.
    """
    parts = split_names(name)
    if len(parts) > 1 and (PLAIN in parts or "" in parts or len(set(parts)) < len(parts)):
        raise ConfigurationError(
            f"draft {name!r}: only different drafts can be joined by '+', for example 'hold+linear' or "
            "'hold+/path/to/draft'"
        )
    return {part: _locate(part, checkpoint) for part in parts}


def _require_room(name: str, directories: Sequence[Path | None], tree: TreeConfig) -> None:
    """Refuse at once what some actions only would find too large for the target's cache."""
    under_root = sum(ACTION_LENGTH - 2 if directory is None else tree.nodes - 1 for directory in directories)
    if under_root >= MAX_TREE_NODES:
        raise ConfigurationError(
            f"draft {name!r} with tree_nodes {tree.nodes}: a tree may have {under_root + 1} nodes; at most "
            f"{MAX_TREE_NODES} fit the cache: lower tree_nodes, or join fewer drafts"
        )


def split_names(name: str) -> list[str]:
    """The names between the +, but for those in a directory's own: OpenVLA's script names fine-tunes with them."""
    pieces, parts = name.split("+"), []
    while pieces:
        joined = ["+".join(pieces[:count]).strip() for count in range(len(pieces), 1, -1)]
        part = next((one for one in joined if "/" in one and Path(one).expanduser().is_dir()), pieces[0].strip())
        parts.append(part)
        pieces = pieces[part.count("+") + 1 :]
    return parts


def _locate(name: str, checkpoint: Path | None) -> Path | None:
    if name in WITHOUT_WEIGHTS:
        return None
    if name == "eagle":
        return _own_draft(checkpoint)
    if not name or ("/" not in name and not Path(name).is_dir()):
        raise ConfigurationError(
            f"draft {name!r} does not exist; expected none, hold, linear, eagle, or a draft's directory or hub name"
        )
    return resolve_checkpoint(name)


def _build_one(
    name: str, directory: Path | None, target: OpenVLA, capacity: int, tree: TreeConfig, sha256: str
) -> Drafter:
    if name == PLAIN:
        return NoDrafter()
    if name == "hold":
        return HoldDrafter()
    if name == "linear":
        return LinearDrafter(target.config.action_ids)
    assert directory is not None
    if sha256:
        require_sha256(directory, sha256)
    head = load_head(directory, target.dtype, target.device)
    tree = replace(tree, legacy=tree.legacy or _is_legacy(directory))
    return EagleDrafter(target, head, capacity=capacity, tree=tree)


def _is_legacy(directory: Path) -> bool:
    """Whether a draft says of itself that it was trained with the released code: that belongs to its weights."""
    value = read_config(directory).get(LEGACY_KEY, False)
    if not isinstance(value, bool):
        raise CheckpointError(f"{directory / 'config.json'}: {LEGACY_KEY} is {value!r}; expected true or false")
    return value


def _own_draft(checkpoint: Path | None) -> Path:
    directory = checkpoint / "draft" if checkpoint else None
    if directory is None or not directory.is_dir():
        raise ConfigurationError(
            f"draft 'eagle' is the one in the checkpoint's own folder, and there is no {directory or 'such folder'}; "
            "name a draft's directory, or none, hold or linear"
        )
    return directory


def load_head(directory: Path, dtype: torch.dtype, device: torch.device) -> EagleHead:
    """Read a Spec-VLA draft checkpoint as it was released.

    Raises:
        CheckpointError: a file, key or shape is not as the layout says.
    """
    config = LlamaConfig.from_dict(read_config(directory), str(directory / "config.json"))
    with torch.device("meta"):
        head = EagleHead(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    head.load_state_dict(load_draft_tensors(directory, shapes, dtype=dtype, device=device), assign=True)
    # The rotary tables are in no checkpoint and would stay float32.
    return fuse_projections(head.to(device, dtype).eval())
