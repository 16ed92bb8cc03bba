"""Every way in which a checkpoint can be broken ends in one sentence with the file, the key and what was expected."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from untrained import CONFIG, write_untrained_checkpoint

from specvla_ros.errors import CheckpointError
from specvla_ros.runtime import WEIGHTS, load_policy, load_target
from specvla_ros.speculative.build import load_head
from specvla_ros.vla.checkpoint import (
    load_draft_tensors,
    load_tensors,
    read_norm_stats,
    resolve_checkpoint,
    write_checkpoint,
)
from specvla_ros.vla.config import LlamaConfig, OpenVLAConfig
from specvla_ros.vla.fingerprint import require_sha256, weights_mark, weights_sha256

CPU = torch.device("cpu")
SHAPES = {"layer.weight": (4, 3), "layer.bias": (4,)}
TENSORS = {"layer.weight": torch.arange(12.0).view(4, 3), "layer.bias": torch.ones(4), "unread": torch.ones(1)}


def load(directory: Path, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, torch.Tensor]:
    return load_tensors(directory, shapes, dtype=torch.float32, device=CPU)


@pytest.fixture
def single(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    weight_map = {}
    for number, (key, tensor) in enumerate(TENSORS.items(), start=1):
        name = f"model-{number:05}-of-00003.safetensors"
        save_file({key: tensor}, tmp_path / name)
        weight_map[key] = name
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_only_the_wanted_tensors_are_read_whatever_the_layout(layout: str, request: pytest.FixtureRequest) -> None:
    tensors = load(request.getfixturevalue(layout))
    assert set(tensors) == set(SHAPES)
    assert torch.equal(tensors["layer.weight"], TENSORS["layer.weight"])


def test_a_shard_with_nothing_wanted_need_not_be_there(sharded: Path) -> None:
    (sharded / "model-00003-of-00003.safetensors").unlink()
    assert set(load(sharded)) == set(SHAPES)


def test_a_single_file_counts_before_an_index_that_a_later_save_left_beside_it(sharded: Path) -> None:
    save_file({key: tensor + 1 for key, tensor in TENSORS.items()}, sharded / "model.safetensors")
    assert torch.equal(load(sharded)["layer.weight"], TENSORS["layer.weight"] + 1)
    for shard in sharded.glob("model-*.safetensors"):
        shard.unlink()
    assert set(load(sharded)) == set(SHAPES)


def test_tensors_come_in_the_asked_type(single: Path) -> None:
    tensors = load_tensors(single, SHAPES, dtype=torch.bfloat16, device=CPU)
    assert all(tensor.dtype == torch.bfloat16 for tensor in tensors.values())


@pytest.mark.parametrize("pickled", [False, True])
def test_a_file_that_is_overwritten_later_changes_no_weights(tmp_path: Path, pickled: bool) -> None:
    """As `cp` does over a checkpoint that a policy runs on."""
    path = tmp_path / ("pytorch_model.bin" if pickled else "model.safetensors")
    torch.save(TENSORS, path) if pickled else save_file(TENSORS, path)
    tensors = load_draft_tensors(tmp_path, SHAPES, dtype=torch.float32, device=CPU)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(tensors["layer.weight"], TENSORS["layer.weight"])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_nor_those_of_a_model(tmp_path: Path, weights: str) -> None:
    write_untrained_checkpoint(tmp_path / "model")
    target = load_target(tmp_path / "model", torch.bfloat16, CPU, weights)
    before = [tensor.clone() for tensor in target.state_dict().values()]
    with (tmp_path / "model" / "model.safetensors").open("r+b") as file:
        file.write(bytes((tmp_path / "model" / "model.safetensors").stat().st_size))
    assert all(map(torch.equal, target.state_dict().values(), before))


def test_a_missing_key_is_named_with_the_nearest_ones(single: Path, sharded: Path) -> None:
    for directory in (single, sharded):
        with pytest.raises(CheckpointError, match=r"key layer.gain.* is missing among its 3 keys.*layer\.") as error:
            load(directory, {"layer.gain": (4,)})
        assert str(directory) in str(error.value)


def test_a_wrong_shape_names_found_and_expected(single: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model.safetensors: layer.weight is \(4, 3\), but .* \(3, 4\)"):
        load(single, {"layer.weight": (3, 4)})


def test_a_file_cut_short_is_named(single: Path) -> None:
    path = single / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"model.safetensors is cut short or is no safetensors file"):
        load(single)


def test_a_missing_shard_is_named_with_what_it_should_hold(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"model-00002-of-00003.safetensors is missing; it should hold layer.bias"
    ):
        load(sharded)


def test_a_pickled_target_is_refused_unopened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match=r"only pickled weights \(pytorch_model.bin\), which can run code"):
        load(tmp_path)


def test_a_folder_without_weights_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no weights; expected model.safetensors"):
        load(tmp_path)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(__file__).parent / "harm",))


def test_a_draft_pickle_is_read_as_weights_only(tmp_path: Path) -> None:
    torch.save({**TENSORS, "embed_tokens.weight": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    tensors = load_draft_tensors(tmp_path, SHAPES, dtype=torch.float32, device=CPU)
    assert set(tensors) == set(SHAPES)
    with pytest.raises(CheckpointError, match=r"key layer\.gain"):
        load_draft_tensors(tmp_path, {"layer.gain": (4,)}, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_draft_pickle_that_would_run_code_is_refused(tmp_path: Path, new_format: bool) -> None:
    path = tmp_path / "pytorch_model.bin"
    if new_format:
        torch.save({"layer.weight": Harmful()}, path)
    else:
        path.write_bytes(pickle.dumps({"layer.weight": Harmful()}))
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin (holds more than tensors|is cut short)"):
        load_draft_tensors(tmp_path, SHAPES, dtype=torch.float32, device=CPU)
    assert not (Path(__file__).parent / "harm").exists()


def test_a_draft_pickle_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is cut short"):
        load_draft_tensors(tmp_path, SHAPES, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([torch.ones(4)], r"pytorch_model.bin is a list; expected tensors by name"),
        ({**TENSORS, "layer.bias": 3, 1: torch.ones(1)}, r"key layer.bias of shape \(4,\) is missing among its 3 keys"),
        ({**TENSORS, "layer.bias": torch.ones(4, dtype=torch.int8)}, r"layer.bias is of torch.int8; expected floating"),
    ],
)
def test_a_draft_pickle_of_something_else_says_what_it_is(tmp_path: Path, content: Any, part: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=part):
        load_draft_tensors(tmp_path, SHAPES, dtype=torch.float32, device=CPU)


def test_a_draft_pickle_of_an_old_torch_is_refused_in_a_sentence(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"no file of torch 1.6 or newer; .* convert it to model.safetensors"):
        load_draft_tensors(tmp_path, SHAPES, dtype=torch.float32, device=CPU)


def test_no_pickle_is_read_beside_the_file_that_a_drafts_hash_is_of(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "moved_away.safetensors")
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    require_sha256(tmp_path, hashlib.sha256((tmp_path / "moved_away.safetensors").read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match=r"expected model.safetensors"):
        load_draft_tensors(tmp_path, SHAPES, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_that_were_quantised_are_refused(single: Path, kind: torch.dtype) -> None:
    """Their shapes fit, and read as they are they would be others: the scales lie elsewhere."""
    save_file({**TENSORS, "layer.weight": torch.ones(4, 3).to(kind)}, single / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"layer.weight is of {kind}; expected floating point"):
        load(single)


def test_a_fine_tunes_statistics_stand_in_for_its_base_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"norm_stats": {"bridge": 1, "libero": 2}}))
    assert read_norm_stats(tmp_path) == {"bridge": 1, "libero": 2}
    (tmp_path / "dataset_statistics.json").write_text(json.dumps({"mine": 3}))
    assert read_norm_stats(tmp_path) == {"mine": 3}


def test_statistics_that_are_a_list_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"norm_stats": [{"q01": 0}]}))
    with pytest.raises(CheckpointError, match=r"config.json: norm_stats is a list; expected an object"):
        read_norm_stats(tmp_path)


def test_a_path_that_is_not_there_and_a_hub_that_cannot_be_reached_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere is not a directory; expected one that holds config.json"):
        resolve_checkpoint(tmp_path / "nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"hf download openvla/openvla-7b --local-dir"):
        resolve_checkpoint("openvla/openvla-7b")
    with pytest.raises(CheckpointError, match=r"hf download openvla/openvla-7b --revision 31f090d --local-dir"):
        resolve_checkpoint("openvla/openvla-7b@31f090d")


def test_a_connection_that_breaks_while_downloading_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class ReadTimeout(Exception):
        """As of the HTTP library beneath huggingface_hub, which changes with its version."""

    def download(*_: Any, **__: Any) -> str:
        raise ReadTimeout("the read operation timed out")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match=r"could not be had from the hub \(ReadTimeout\)"):
        resolve_checkpoint("openvla/openvla-7b")


def test_a_revision_behind_the_name_is_what_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_checkpoint("openvla/openvla-7b@31f090d") == resolve_checkpoint("openvla/openvla-7b") == tmp_path
    assert asked == [("openvla/openvla-7b", "31f090d"), ("openvla/openvla-7b", None)]


def test_weights_with_another_hash_are_refused_before_anything_is_loaded(single: Path) -> None:
    expected = hashlib.sha256((single / "model.safetensors").read_bytes()).hexdigest()
    assert weights_sha256(single) == expected
    require_sha256(single, expected.upper())
    with pytest.raises(CheckpointError, match=f"have the SHA-256 {expected}; expected 1234"):
        load_policy(single, sha256="1234")


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def fails(directory: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "model", {}, TENSORS, {}, extra_files=fails)
    assert list(tmp_path.iterdir()) == []


def test_a_written_checkpoint_loads_like_any_other(tmp_path: Path) -> None:
    write_untrained_checkpoint(tmp_path / "model")
    assert load_target(tmp_path / "model", torch.float32, CPU).config == CONFIG


@pytest.mark.parametrize("file", ["action_head--150000_checkpoint.pt", "proprio_projector--latest_checkpoint.pt"])
def test_a_fine_tune_whose_actions_are_no_tokens_is_refused(tmp_path: Path, file: str) -> None:
    write_untrained_checkpoint(tmp_path / "model")
    (tmp_path / "model" / file).touch()
    with pytest.raises(CheckpointError, match=rf"model is a fine-tune of OpenVLA-OFT \({file}\)"):
        load_target(tmp_path / "model", torch.float32, CPU)


def test_a_configuration_reads_back_as_it_was_written() -> None:
    assert OpenVLAConfig.from_dict(CONFIG.to_dict()) == CONFIG
    assert OpenVLAConfig.from_dict({"model_type": "openvla", "text_config": {"model_type": "llama"}}) == OpenVLAConfig()


def test_no_number_of_key_heads_is_one_for_each_query_head() -> None:
    assert LlamaConfig.from_dict({"num_key_value_heads": None}, "config.json") == LlamaConfig()


def test_rope_is_read_as_each_version_of_transformers_writes_it() -> None:
    for fields in ({"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}):
        assert LlamaConfig.from_dict(fields, "config.json").rope_theta == 5e5


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; expected 'openvla'"),
        ({"vision_backbone_id": "siglip-vit-so400m"}, "vision_backbone_id is 'siglip-vit-so400m'"),
        ({"image_resize_strategy": "letterbox"}, "image_resize_strategy is 'letterbox'; only 'resize-naive'"),
        ({"n_action_bins": 128}, "n_action_bins is 128"),
        ({"text_config": {"num_key_value_heads": 8}}, "num_key_value_heads is 8 but num_attention_heads is 32"),
        ({"text_config": {"model_type": "qwen2"}}, "model_type is 'qwen2'; OpenVLA's Llama-2 has 'llama'"),
        ({"text_config": {"attention_bias": True}}, "attention_bias is True; OpenVLA's Llama-2 has False"),
        ({"text_config": {"rope_scaling": {"type": "linear", "factor": 2.0}}}, "RoPE is .*linear.* unscaled"),
        ({"text_config": {"rope_parameters": {"rope_type": "yarn"}}}, "RoPE is .*yarn.* unscaled"),
        ({"text_config": {"hidden_size": "wide"}}, "hidden_size is 'wide'"),
        ({"text_config": {"num_hidden_layers": 2.5}}, "num_hidden_layers is 2.5; expected a whole number above 0"),
        ({"text_config": {"rms_norm_eps": float("inf")}}, "rms_norm_eps is inf; expected a number above 0"),
        ({"pad_to_multiple_of": None}, "pad_to_multiple_of is None; expected a whole number"),
        ({"pad_to_multiple_of": 32000}, "pad_to_multiple_of is 32000; .* leaves 256 action tokens"),
        ({"text_config": {"hidden_size": 100}}, "100 is not a multiple of its 32 attention heads"),
    ],
)
def test_a_configuration_of_something_else_is_refused(change: dict, part: str) -> None:
    with pytest.raises(CheckpointError, match=part):
        OpenVLAConfig.from_dict({"model_type": "openvla", "text_config": {}, **change})


def test_a_broken_checkpoint_is_refused_by_load_policy_too(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        load_policy(tmp_path)
    (tmp_path / "config.json").write_text("not json")
    with pytest.raises(CheckpointError, match=r"config.json is not readable JSON"):
        load_policy(tmp_path)
    with pytest.raises(CheckpointError, match=r"config.json is not readable JSON"):
        load_head(tmp_path, torch.float32, CPU)


def test_a_mark_is_of_all_weights_in_some_directories_wherever_they_lie(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000  # five megabytes: not all of it is read
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(content)
        os.utime(directory / "model.safetensors", (1.0, 1.0 if directory == first else 2.0))
    mark = weights_mark([first])
    assert weights_mark([second]) == mark == weights_mark([first, tmp_path / "nowhere"])
    (second / "pytorch_model.bin").write_bytes(b"a draft")
    assert weights_mark([first, second]) != mark != weights_mark([second])
    for place in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        (first / "model.safetensors").write_bytes(changed)
        assert weights_mark([first]) != mark
    (first / "model.safetensors").write_bytes(content + b"0")
    assert weights_mark([first]) != mark
