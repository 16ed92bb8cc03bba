from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import draft_data
import numpy as np
import pytest
import reference
import torch
from reference import CASES, needs_reference
from tokenizers import Tokenizer

from specvla_ros import load_policy
from specvla_ros.errors import CheckpointError, ConfigurationError, ImageError
from specvla_ros.policy import expand_thresholds
from specvla_ros.speculative.eagle import EagleDrafter

IMAGE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)


@needs_reference
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("key", "name"), [("libero_goal", "action_libero"), ("bridge_orig", "action_bridge")])
def test_the_reference_checkpoint_gives_the_public_tokens_and_actions(case: str, key: str, name: str) -> None:
    arrays = reference.values("openvla_tiny")
    policy = load_policy(reference.ROOT / "openvla_tiny", device="cpu", unnorm_key=key)
    ids = torch.tensor([*arrays[f"{case}/input_ids"][0], 29871])
    action = policy.decode(ids, torch.from_numpy(arrays[f"{case}/pixel_values"]))
    assert list(action.tokens) == arrays[f"{case}/action_tokens"].tolist()
    assert np.abs(action.values - arrays[f"{case}/{name}"]).max() <= 1e-12


@needs_reference
def test_a_checkpoint_without_a_tokenizer_still_decodes_ids_and_says_what_act_lacks() -> None:
    policy = load_policy(reference.ROOT / "openvla_tiny", device="cpu", unnorm_key="bridge_orig")
    with pytest.raises(ConfigurationError, match=r"no tokenizer\.json"):
        policy.act(IMAGE, "pick up the bowl")


@needs_reference
def test_a_released_draft_is_loaded_by_its_directory_and_joined_with_others() -> None:
    draft = str(reference.ROOT / "specvla_draft_tiny")
    arrays = reference.values("specvla_draft_tiny")
    ids, pixels = torch.from_numpy(arrays["0/input_ids"][0]), torch.from_numpy(arrays["0/pixel_values"])
    for name in (draft, f"hold+{draft}"):
        policy = load_policy(reference.ROOT / "openvla_tiny", draft=name, device="cpu", unnorm_key="bridge_orig")
        for _ in range(2):
            assert list(policy.decode(ids, pixels).tokens) == arrays["0/ar_tokens"].tolist()
        assert policy.decode(ids, pixels).stats.forwards < 7


@pytest.mark.parametrize("draft", ["hold", "linear", "eagle", "hold+linear", "hold+eagle"])
def test_every_draft_gives_the_action_of_plain_decoding(draft: str) -> None:
    plain, drafted = load_policy(draft="none"), load_policy(draft=draft)
    for step in range(4):
        image = np.roll(IMAGE, 3 * step, axis=1)
        expected, found = plain.act(image, "pick up the bowl"), drafted.act(image, "pick up the bowl")
        assert found.tokens == expected.tokens and np.array_equal(found.values, expected.values)
        assert expected.stats.forwards == 7 and found.stats.forwards <= 7


def test_an_action_says_what_it_cost() -> None:
    stats = load_policy().act(IMAGE, "pick up the bowl").stats
    assert set(stats.milliseconds) == {"prepare", "vision", "prefill", "draft", "verify", "total"}
    assert all(value >= 0 for value in stats.milliseconds.values())


def test_reset_forgets_the_last_action() -> None:
    policy = load_policy(draft="hold")
    first = policy.act(IMAGE, "pick up the bowl")
    again = policy.act(IMAGE, "pick up the bowl")
    assert first.stats.accepted == (0,) * 6 and again.stats.accepted == (5,)
    policy.reset()
    assert policy.act(IMAGE, "pick up the bowl").stats.accepted == (0,) * 6


def test_reset_leaves_nothing_in_a_drafts_cache_that_is_not_finite() -> None:
    """An overflow in float16, say; a slot that is never attended to counts all the same."""
    policy = load_policy(draft="eagle", device="cpu")
    expected = policy.act(IMAGE, "pick up the bowl").stats.accepted
    drafter = policy.decoder.drafter
    assert isinstance(drafter, EagleDrafter)
    drafter._cache.values.fill_(float("nan"))
    policy.reset()
    assert policy.act(IMAGE, "pick up the bowl").stats.accepted == expected
    assert drafter._cache.values.isfinite().all()


def test_the_threshold_is_obeyed_from_the_next_action_on() -> None:
    policy = load_policy(draft="hold", threshold=0)
    policy.act(IMAGE, "pick up the bowl")
    policy.thresholds = expand_thresholds([255] * 7)
    relaxed = policy.act(np.zeros_like(IMAGE), "open the drawer")
    assert relaxed.stats.accepted == (5,), "at 255 bins the last action is always near enough"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"threshold": 256}, "threshold 256 for x is out of range"),
        ({"threshold": -1}, "out of range"),
        ({"threshold": 1.5}, "whole number"),
        ({"threshold": [1, 2]}, "expected one for each of x, y, z"),
        ({"device": "gpu"}, "device 'gpu' is not one"),
        ({"dtype": "int8"}, "dtype 'int8' is not one; expected auto, float32"),
        ({"draft": "hold+none"}, "only different drafts can be joined"),
        ({"draft": "hold+hold"}, "only different drafts can be joined"),
        ({"draft": ""}, "draft '' does not exist"),
        ({"preparation": "bridge"}, "expected auto, libero, centre_crop, none"),
        pytest.param(
            {"device": "cuda"},
            "this torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here"),
        ),
    ],
)
def test_a_setting_that_does_not_exist_is_refused_at_loading(arguments: dict, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        load_policy(**arguments)


def test_what_needs_no_weights_is_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the weights are read")

    draft_data.write_target(tmp_path / "target")
    monkeypatch.setattr("specvla_ros.runtime.load_target", read)
    with pytest.raises(ConfigurationError, match="preparation 'bridge' is not one"):
        load_policy(tmp_path / "target", preparation="bridge")
    (tmp_path / "target" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        load_policy(tmp_path / "target")


def test_a_gpu_with_too_little_memory_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError(
            "CUDA out of memory. 2 GiB is free. Of the allocated memory 1 GiB is reserved"
        )

    policy = load_policy()
    monkeypatch.setattr("specvla_ros.runtime.new_decoder", short)
    for load in (load_policy, lambda: policy.with_draft("hold", expand_thresholds(0))):
        with pytest.raises(ConfigurationError, match=r"too little memory: .* weights int8 .* \(.* 2 GiB is free\.\)$"):
            load()


@pytest.mark.parametrize(
    ("dtype", "advice"), [("float32", ", or take dtype bfloat16, which needs half"), ("bfloat16", "")]
)
def test_a_machine_with_too_little_memory_is_said_before_the_weights_are_read(
    monkeypatch: pytest.MonkeyPatch, dtype: str, advice: str
) -> None:
    monkeypatch.setattr("specvla_ros.runtime.available_memory", lambda: 10_000_000)
    with pytest.raises(ConfigurationError, match=rf"GB in {dtype}, and this machine has 0.0 GB .* uses it{advice}$"):
        load_policy(device="cpu", dtype=dtype)


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    """Its ids would be rows that the embedding does not have."""
    draft_data.write_target(tmp_path / "target")
    path = tmp_path / "target" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens([f"word {number}" for number in range(32064)])
    tokenizer.save(str(path))
    with pytest.raises(CheckpointError, match=r"tokenizer.json has ids up to \d+, and .* vocabulary ends at 32063"):
        load_policy(tmp_path / "target", device="cpu")


def test_an_image_that_is_none_is_refused() -> None:
    with pytest.raises(ImageError, match="expected"):
        load_policy().act(np.zeros((4, 4), np.uint8), "pick up the bowl")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_strict_tokens_on_a_gpu_are_the_cpus() -> None:
    on_gpu, on_cpu = load_policy(draft="hold", device="cuda", dtype="float32"), load_policy(device="cpu")
    for _ in range(3):
        assert on_gpu.act(IMAGE, "pick up the bowl").tokens == on_cpu.act(IMAGE, "pick up the bowl").tokens


def test_the_decoder_never_imports_ros_and_the_protocol_never_imports_torch() -> None:
    check = (
        "import sys; import specvla_ros.runtime; assert 'rclpy' not in sys.modules; assert 'torch' in sys.modules",
        "import sys; import specvla_ros.policy, specvla_ros.fake_policy; assert 'torch' not in sys.modules",
        "import sys; import specvla_ros.nodes.policy_node; assert 'torch' not in sys.modules",
    )
    for code in check:
        subprocess.run([sys.executable, "-c", code], check=True)
