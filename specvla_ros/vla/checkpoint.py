"""Checkpoint directories in OpenVLA's and Spec-VLA's public layouts, without remote code or free pickles."""

from __future__ import annotations

import difflib
import json
import os
import pickle
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from specvla_ros.errors import CheckpointError

CONFIG_FILE = "config.json"
STATISTICS_FILE = "dataset_statistics.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"
OFT_PATTERNS = ("action_head--*.pt", "proprio_projector--*.pt")
"""Files that only OpenVLA-OFT's fine-tunes have."""
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Types in which a weight is what it says. Those of 8 bits need scales that lie elsewhere, and would load as others."""
HUB_PATTERNS = ["*.json", "*.safetensors", PICKLE_FILE, OFT_PATTERNS[1]]
"""The last, and small, one is only wanted so that such a fine-tune is noticed."""

Shapes = Mapping[str, tuple[int, ...]]


def resolve_checkpoint(name: str | Path) -> Path:
    """A directory as it is, or else a hub name, downloaded once to the hub's cache.

    `owner/name@revision` is that commit, tag or branch, and a commit's hash never changes what it names.

    Raises:
        CheckpointError: neither a directory nor a repository that can be reached.
    """
    directory = Path(name).expanduser()
    if directory.is_dir():
        return directory
    if directory.is_absolute() or str(name).startswith(".") or str(name).count("/") != 1:
        raise CheckpointError(f"{name} is not a directory; expected one that holds {CONFIG_FILE} and safetensors files")
    from huggingface_hub import snapshot_download

    repository, _, revision = str(name).partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=HUB_PATTERNS))
    except Exception as error:  # a broken connection's is of the HTTP library that this version of the hub's client has
        wanted = f" --revision {revision}" if revision else ""
        raise CheckpointError(
            f"{name} is not a directory here, and it could not be had from the hub ({type(error).__name__}); check the "
            f"name and the connection, or run 'hf download {repository}{wanted} --local-dir DIR' on a machine with "
            "access, copy DIR here and give its path"
        ) from error


def read_config(directory: Path) -> dict[str, Any]:
    """The directory's config.json."""
    return _read_json(directory / CONFIG_FILE)


def read_norm_stats(directory: Path) -> dict[str, Any]:
    """Normalisation by data set: a fine-tune's dataset_statistics.json, or else config.json's.

    A fine-tune's config.json still holds what its base model was trained on; OpenVLA's evaluation reads the file
    beside it alone, and so a fine-tune on one data set needs no key.
    """
    if (directory / STATISTICS_FILE).is_file():
        return _read_json(directory / STATISTICS_FILE)
    norm_stats = read_config(directory).get("norm_stats") or {}
    if not isinstance(norm_stats, dict):
        raise CheckpointError(
            f"{directory / CONFIG_FILE}: norm_stats is a {type(norm_stats).__name__}; expected an object with an entry "
            "for each data set"
        )
    return norm_stats


def require_action_tokens(directory: Path) -> None:
    """Refuse a fine-tune whose language model was not trained to answer with action tokens.

    OpenVLA-OFT's look like OpenVLA's, and would load and move the arm somehow.

    Raises:
        CheckpointError: it is one of OpenVLA-OFT.
    """
    if found := sorted(path.name for pattern in OFT_PATTERNS for path in directory.glob(pattern)):
        raise CheckpointError(
            f"{directory} is a fine-tune of OpenVLA-OFT ({', '.join(found)}), whose actions are no tokens; give one of "
            "OpenVLA, for example openvla/openvla-7b-finetuned-libero-spatial"
        )


def load_tensors(
    directory: Path, shapes: Shapes, *, dtype: torch.dtype, device: torch.device, mapped: bool = False
) -> dict[str, Tensor]:
    """Read just the tensors named in `shapes` from one or several safetensors files.

    Args:
        mapped: tensors of this type may stay in the file, for a caller that copies them: they take no memory, and would
            change with the file.

    Raises:
        CheckpointError: a file is missing, cut short or no safetensors; a key is missing, has another shape, or is not
            of floating point. The message names the file, the key, what was expected and what is there.
    """
    tensors: dict[str, Tensor] = {}
    for path, keys in _locate(directory, shapes).items():
        tensors.update(_load_file(path, {key: shapes[key] for key in keys}, dtype, device, mapped))
    return tensors


def load_draft_tensors(
    directory: Path, shapes: Shapes, *, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """The same for a draft: safetensors, or where there are none the released pytorch_model.bin read as weights only.

    Raises:
        CheckpointError: as `load_tensors`; also a pickle that holds anything but tensors.
    """
    # What `weights_sha256` is of: beside any safetensors file a pickle would be read whose hash nobody has asked for.
    if any(directory.glob("*.safetensors")) or not (directory / PICKLE_FILE).is_file():
        return load_tensors(directory, shapes, dtype=dtype, device=device)
    path = directory / PICKLE_FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and was not opened, because a pickle can run code; convert it to "
            f"{WEIGHTS_FILE} where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path} is cut short, or is no file of torch 1.6 or newer; copy it again, or convert it to {WEIGHTS_FILE}"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is a {type(state).__name__}; expected tensors by name")
    state = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    for key, shape in shapes.items():
        if key not in state:
            raise _missing_key(path, key, shape, state)
        _check(path, key, state[key], shape)
    return {key: state[key].to(device, dtype, copy=True) for key in shapes}


def write_checkpoint(
    directory: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    norm_stats: Mapping[str, Any],
    extra_files: Callable[[Path], None] | None = None,
) -> None:
    """Write a checkpoint in OpenVLA's layout; it appears whole or not at all.

    Args:
        extra_files: writes further files, such as a tokenizer, into the directory it is given.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        (unfinished / CONFIG_FILE).write_text(json.dumps({**config, "norm_stats": norm_stats}, indent=2) + "\n")
        save_file(dict(tensors), unfinished / WEIGHTS_FILE)
        if extra_files:
            extra_files(unfinished)
        unfinished.chmod(0o755)
        try:
            os.rename(unfinished, directory)
        except OSError:
            # Another process was first with the same checkpoint: its directory is as good.
            if not (directory / CONFIG_FILE).is_file():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _locate(directory: Path, keys: Iterable[str]) -> dict[Path, list[str]]:
    """Which file holds which of the keys.

    The single file comes first, as in transformers, which leaves the old index beside it when it saves again.
    """
    if (directory / WEIGHTS_FILE).is_file():
        return {directory / WEIGHTS_FILE: list(keys)}
    if (directory / INDEX_FILE).is_file():
        weight_map = _read_json(directory / INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{directory / INDEX_FILE}: no weight_map; expected one from keys to file names")
        files: defaultdict[Path, list[str]] = defaultdict(list)
        for key in keys:
            if key not in weight_map:
                raise _missing_key(directory / INDEX_FILE, key, None, weight_map)
            files[directory / str(weight_map[key])].append(key)
        return files
    pickles = sorted(path.name for path in directory.glob("*.bin"))
    found = f"only pickled weights ({', '.join(pickles)}), which can run code" if pickles else "no weights"
    raise CheckpointError(
        f"{directory} holds {found}; expected {WEIGHTS_FILE}, or {INDEX_FILE} with its shards: convert or download them"
    )


def _load_file(path: Path, shapes: Shapes, dtype: torch.dtype, device: torch.device, mapped: bool) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; it should hold {next(iter(shapes))}: copy or download it again")
    try:
        with safe_open(path, framework="pt") as file:
            present = set(file.keys())
            for key, shape in shapes.items():
                if key not in present:
                    raise _missing_key(path, key, shape, present)
                _check(path, key, file.get_tensor(key), shape)  # the file is mapped: nothing is read yet
            return {key: file.get_tensor(key).to(device, dtype, copy=not mapped) for key in shapes}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is cut short or is no safetensors file ({error}); copy or download it again"
        ) from error


def _check(path: Path, key: str, found: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(found.shape) != shape:
        raise CheckpointError(
            f"{path}: {key} is {tuple(found.shape)}, but config.json makes it {shape}: they do not belong together"
        )
    if found.dtype not in FLOATS:
        raise CheckpointError(
            f"{path}: {key} is of {found.dtype}; expected floating point of 16 bits or more: give the checkpoint as it "
            "was before its weights were quantised"
        )


def _missing_key(path: Path, key: str, shape: tuple[int, ...] | None, present: Iterable[str]) -> CheckpointError:
    names = sorted(present)
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.5) or names[:3]
    expected = f" of shape {shape}" if shape else ""
    return CheckpointError(
        f"{path}: key {key}{expected} is missing among its {len(names)} keys; the nearest are "
        f"{', '.join(near) or 'none'}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; expected a checkpoint directory in OpenVLA's layout") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is a JSON {type(content).__name__}; expected an object")
    return content
