from __future__ import annotations

import csv
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import draft_data
import pytest
import torch
from models import random_head, random_target
from torch import Tensor
from typer.testing import CliRunner

from specvla_ros import load_policy
from specvla_ros.cli import app
from specvla_ros.errors import ConfigurationError, DataError
from specvla_ros.speculative.eagle import EagleHead
from specvla_ros.training import draft
from specvla_ros.training.accept_length import held_out_accept_lengths
from specvla_ros.training.draft import DraftOptions, train_draft
from specvla_ros.training.draft_loss import DraftLoss, draft_loss, unrolled_features
from specvla_ros.training.estimate import estimate_needs
from specvla_ros.training.regenerate import RegenerateOptions, regenerate
from specvla_ros.training.regenerated import RegeneratedBatch, RegeneratedFrames
from specvla_ros.vla.cache import KeyValueCache
from specvla_ros.vla.config import OpenVLAConfig

HIDDEN = 16
LENGTHS = torch.tensor([9, 12])
SIZE = 12 + 6


def random_sequences() -> tuple[Tensor, Tensor]:
    """(2, 18, 16) embeddings and features of prefixes of 9 and 12 positions, six action tokens and filling."""
    generator = torch.Generator().manual_seed(5)
    embeddings, features = torch.randn(2, 2, SIZE, HIDDEN, generator=generator, dtype=torch.float64)
    return embeddings, features


def new_cache(head: EagleHead) -> KeyValueCache:
    config = head.config
    return KeyValueCache(
        1, config.num_attention_heads, 64, config.head_size, dtype=torch.float64, device=torch.device("cpu")
    )


@torch.inference_mode()
def test_the_first_step_is_the_heads_own_forward() -> None:
    head = random_head(1)
    embeddings, features = random_sequences()
    outputs = unrolled_features(head, embeddings, features, LENGTHS, 1)[0]
    for row, length in enumerate(LENGTHS.tolist()):
        end = length + 5
        expected = head(embeddings[row, 1 : end + 1], features[row, :end], torch.arange(end), new_cache(head), None)
        torch.testing.assert_close(outputs[row], expected[-6:], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_unrolled_steps_are_drafts_that_deep() -> None:
    """Against the head as `EagleDrafter` runs it: target features up to the root, then its own, one by one."""
    head = random_head(2)
    embeddings, features = random_sequences()
    outputs = unrolled_features(head, embeddings, features, LENGTHS, 6)
    for row, length in enumerate(LENGTHS.tolist()):
        for root in range(6):
            cache, end = new_cache(head), length + root
            feature = head(embeddings[row, 1 : end + 1], features[row, :end], torch.arange(end), cache, None)[-1:]
            cache.commit(end)
            for depth in range(6 - root):
                torch.testing.assert_close(outputs[depth, row, root + depth], feature[0], atol=1e-5, rtol=0)
                place = end + depth
                if place + 1 < embeddings.shape[1]:
                    embedding = embeddings[row, place + 1 : place + 2]
                    feature = head(embedding, feature, torch.tensor([place]), cache, None)
                    cache.commit(1)


@torch.inference_mode()
def test_action_positions_see_earlier_ones_and_no_later_one() -> None:
    head = random_head(3)
    embeddings, features = random_sequences()
    before = unrolled_features(head, embeddings, features, LENGTHS, 3)
    for changed in range(6):
        other = embeddings.clone()
        other[torch.arange(2), LENGTHS + changed] += 1.0
        after = unrolled_features(head, other, features, LENGTHS, 3)
        for depth in range(3):
            # A position k deep in the unrolling is meaningful from the k-th on.
            moved = (after[depth] - before[depth]).abs().amax(dim=2)[:, depth:] > 1e-9
            expected = torch.arange(depth, 6) >= changed
            assert torch.equal(moved, expected.expand(2, -1)), (changed, depth)


@torch.inference_mode()
def test_filling_does_not_count() -> None:
    target, head = random_target(0).float(), random_head(4).float()
    embeddings, features = (tensor.float() for tensor in random_sequences())
    nothing = torch.empty(0)

    def loss(features: Tensor) -> Tensor:
        batch = RegeneratedBatch(nothing, LENGTHS, nothing, features, nothing)
        weight = target.language_model.lm_head.weight
        return draft_loss(head, weight, embeddings, features, batch, unroll=2, logits_weight=0.1).total

    before = loss(features)
    features[0, 9 + 6 :] += 100.0
    assert loss(features) == before


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> DraftOptions:
    """What a target did on 114 moving steps, and on six held out, of which the draft shall learn."""
    root = tmp_path_factory.mktemp("draft")
    draft_data.write_target(root / "target")
    draft_data.write_demonstrations(root / "demonstrations", episodes=20, steps=4)
    regenerate(
        RegenerateOptions(str(root / "target"), (root / "demonstrations",), root / "data", max_frames=0, device="cpu")
    )
    return DraftOptions(
        checkpoint=str(root / "target"),
        regenerated=root / "data",
        output=root / "draft",
        steps=200,
        learning_rate=1e-2,
        warmup_steps=10,
        batch_size=16,
        validate_every=100,
        validation_frames=6,
        unroll=2,
        device="cpu",
    )


def test_a_trained_draft_is_accepted_more_often_and_loads(options: DraftOptions) -> None:
    target = load_policy(options.checkpoint, device="cpu").decoder.target
    held_out = RegeneratedFrames(options.regenerated, held_out=True)
    torch.manual_seed(0)
    untrained = held_out_accept_lengths(target, EagleHead(target.config.llama), held_out, 6)
    directory = train_draft(options)
    rows = list(csv.DictReader((directory / "validation.csv").open()))
    assert [row["step"] for row in rows] == ["100", "200"]
    for before in untrained:
        best = max(float(row[f"r{before.threshold}"]) for row in rows)
        assert best > before.tokens_per_forward, before.threshold
    assert len(list(csv.DictReader((directory / "log.csv").open()))) == 4
    assert (directory / "training.png").is_file()
    policy = load_policy(options.checkpoint, draft=f"hold+{directory}", device="cpu")
    frame = held_out[0]
    tokens, _ = policy.decoder.decode_patches(frame.input_ids, frame.patches.float(), policy.thresholds)
    assert tokens == frame.tokens.tolist()
    assert json.loads((directory / "config.json").read_text())["vocab_size"] == 32000


def test_training_goes_on_where_it_stopped_with_the_same_options_only(options: DraftOptions, tmp_path: Path) -> None:
    short = replace(options, output=tmp_path, steps=4, accumulation=2, validate_every=2, action_head=False)
    train_draft(short)
    train_draft(replace(short, steps=6))
    train_draft(replace(short, steps=6))
    steps = [row["step"] for row in csv.DictReader((tmp_path / "validation.csv").open())]
    assert steps == ["2", "4", "6"]
    with pytest.raises(ConfigurationError, match="another logits_weight"):
        train_draft(replace(short, logits_weight=0.5))


def test_a_training_that_is_interrupted_loses_no_step(
    options: DraftOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # A shell starts background processes with Ctrl-C ignored, and the tests may be one.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
    short, step, begun = replace(options, output=tmp_path, steps=4), draft._Trainer.step, list[int]()

    def interrupt(trainer: draft._Trainer, batches: list[RegeneratedBatch]) -> DraftLoss:
        begun.append(trainer.steps_done)
        if trainer.steps_done == 1:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, batches)

    monkeypatch.setattr(draft._Trainer, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_draft(short)
    assert not (tmp_path / "model.safetensors").exists()
    train_draft(short)
    assert begun == [0, 1, 2, 3] and (tmp_path / "model.safetensors").is_file()


def test_a_target_that_was_trained_further_in_its_place_gets_no_older_ones_draft(
    options: DraftOptions, tmp_path: Path
) -> None:
    short = replace(
        options,
        checkpoint=str(tmp_path / "target"),
        regenerated=tmp_path / "data",
        output=tmp_path / "draft",
        steps=1,
        validate_every=1,
    )

    def regenerate_with(seed: int) -> None:
        for folder in (tmp_path / "target", short.regenerated):
            shutil.rmtree(folder, ignore_errors=True)
        draft_data.write_target(tmp_path / "target", seed)
        data = Path(options.checkpoint).parent / "demonstrations"
        regenerate(RegenerateOptions(short.checkpoint, (data,), short.regenerated, max_frames=40, device="cpu"))

    regenerate_with(seed=0)
    train_draft(short)
    train_draft(replace(short, checkpoint=options.checkpoint))  # the same weights
    regenerate_with(seed=1)
    with pytest.raises(ConfigurationError, match="was trained with another target; give another output"):
        train_draft(short)


def test_the_minutes_end_training(options: DraftOptions, tmp_path: Path) -> None:
    train_draft(replace(options, output=tmp_path, steps=10**9, minutes=0.02, validate_every=10**9))
    assert (tmp_path / "model.safetensors").is_file()


def test_data_of_another_target_are_refused(options: DraftOptions, tmp_path: Path) -> None:
    draft_data.write_target(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match="with other weights"):
        train_draft(replace(options, checkpoint=str(tmp_path / "other"), output=tmp_path / "draft"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"unroll": 0},
        {"unroll": 7},
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
        {"logits_weight": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(options: DraftOptions, wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))} is .*; expected"):
        train_draft(replace(options, **wrong))  # type: ignore[arg-type]


def test_the_estimate_knows_the_released_sizes() -> None:
    needs = {need.what: need.bytes for need in estimate_needs(batch_size=2)}
    # 7.5e9 parameters are read of the released 7.54e9; the draft has 236e6 (Spec-VLA).
    assert needs["target, bfloat16"] == pytest.approx(15.0e9, rel=0.01)
    assert needs["the draft, float16"] == pytest.approx(2 * 236e6, rel=0.01)
    assert needs["regenerated data, one step"] == (2 * 256 + 28 + 6) * OpenVLAConfig().llama.hidden_size * 2
    told = CliRunner().invoke(app, ["train", "estimate", "--batch-size", "2", "--json", "-"])
    assert {need["what"]: need["bytes"] for need in json.loads(told.stdout)} == needs
