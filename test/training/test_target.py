"""A tiny target learns its frames, goes on where it stopped, and loads like any checkpoint."""

from __future__ import annotations

import csv
import dataclasses
import signal
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_recordings import record

from specvla_ros.errors import ConfigurationError, SpecVLAError
from specvla_ros.runtime import load_policy
from specvla_ros.training import target
from specvla_ros.training.demonstrations import read_demonstrations
from specvla_ros.training.frames import load_frames
from specvla_ros.training.learner import blur, expected_bins, neighbourhood
from specvla_ros.training.target import TargetOptions, train_target
from specvla_ros.training.target_sizes import TargetSizes

SIZES = TargetSizes(vision_width=32, vision_depth=2, hidden_size=64, layers=1, siglip_width=32, siglip_depth=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames, prepared."""
    return prepared(tmp_path_factory.mktemp("data"), steps=8)


def prepared(directory: Path, steps: int) -> Path:
    record(directory / "demonstrations", steps=steps)
    load_frames([directory / "demonstrations"], directory / "frames", workers=1)
    return directory


def options(data: Path, output: Path, **changes: object) -> TargetOptions:
    short = TargetOptions(
        data=(data / "demonstrations",),
        output=output,
        cache=data / "frames",
        sizes=SIZES,
        steps=6,
        batch_size=4,
        warm_up=2,
        every=3,
        device="cpu",
    )
    return dataclasses.replace(short, **changes)  # type: ignore[arg-type]


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoint" / "model.safetensors")


def test_it_learns_from_pictures_and_loads_as_a_policy(tmp_path: Path) -> None:
    data = prepared(tmp_path, steps=2)
    short = {"steps": 150, "every": 150, "warm_up": 10, "learning_rate": 3e-3, "augmentation": 0.0}
    checkpoint = train_target(options(data, tmp_path, **short))
    store = load_frames([data / "demonstrations"], data / "frames")
    tokens = store.tokens(32000)
    episode = next(read_demonstrations(next(data.rglob("*.hdf5"))))
    policy = load_policy(checkpoint, device="cpu")
    answers = np.array([policy.act(image, episode.language).tokens for image in episode.images])
    off = np.abs(answers - tokens).mean(axis=0)
    assert off[0] < 30.0, "the first token of two pictures, where one answer to both is 128 bins off"
    with (tmp_path / "log.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert float(row["tokens"]) < 5.0 and float(row["lr"]) < 1e-4
    assert (tmp_path / "log.png").is_file()


def test_neighbouring_bins_share_a_moving_tokens_aim_and_not_a_fixed_ones() -> None:
    aims = neighbourhood(torch.tensor([100, 100, 255]), torch.tensor([6.0, 0.5, 0.5]))
    assert torch.allclose(aims.sum(dim=1), torch.ones(3))
    assert aims.argmax(dim=1).tolist() == [100, 100, 255]
    assert aims[0, 106] > 0.5 * aims[0, 100] and aims[1, 106] < 1e-6


def test_what_is_read_of_the_tokens_is_often_near_them_and_always_an_action_token() -> None:
    tokens = torch.full((400, 7), 31744)
    read = blur(tokens, range(31744, 32000), torch.Generator().manual_seed(0))
    assert read.min() >= 31744 and read.max() < 32000
    assert 0.4 < ((read - tokens).abs() <= 16).float().mean() < 0.65


def test_the_mean_of_a_sure_distribution_is_its_bin() -> None:
    logits = torch.full((2, 256), -100.0)
    logits[0, 7] = logits[1, 250] = 100.0
    assert expected_bins(logits).tolist() == [7.0, 250.0]


def test_a_run_that_was_cut_off_ends_with_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # A shell starts background processes with Ctrl-C ignored, and the tests may be one.
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
    train_target(options(data, tmp_path / "whole"))
    step = target.TargetRun._train_step

    def interrupt(run: target.TargetRun, batch: target.Batch) -> target.Losses:
        losses = step(run, batch)
        if run._step == 4:
            signal.raise_signal(signal.SIGINT)
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(target.TargetRun, "_train_step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_target(options(data, tmp_path / "parts"))
    train_target(options(data, tmp_path / "parts"))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with (tmp_path / "parts" / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] in (["3", "6"], ["3.0", "6"])


def test_another_configuration_does_not_go_on(data: Path, tmp_path: Path) -> None:
    train_target(options(data, tmp_path, steps=1))
    with pytest.raises(ConfigurationError, match="batch_size was 4 and is now 2"):
        train_target(options(data, tmp_path, steps=1, batch_size=2))
    with pytest.raises(ConfigurationError, match=f"start was None and is now {tmp_path}/other"):
        train_target(options(data, tmp_path, steps=1, start=tmp_path / "other"))


def test_the_time_budget_ends_the_training(data: Path, tmp_path: Path) -> None:
    train_target(options(data, tmp_path, steps=1_000_000, minutes=0.01))
    with (tmp_path / "log.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["seconds"]) >= 0.6 and float(last["step"]) < 1000


def test_a_run_whose_time_is_used_up_when_it_goes_on_leaves_the_weights_that_it_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, received, step = options(data, tmp_path, every=100), list[int](), target.TargetRun._train_step

    def interrupt(run: target.TargetRun, batch: target.Batch) -> target.Losses:
        received.append(signal.SIGTERM)
        return step(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(target, "held_signals", lambda: nullcontext(received))
        patch.setattr(target.TargetRun, "_train_step", interrupt)
        assert not train_target(short).exists()
    load_policy(train_target(dataclasses.replace(short, minutes=1e-9)), device="cpu")


def test_unused_vocabulary_is_zero(data: Path, tmp_path: Path) -> None:
    train_target(options(data, tmp_path, steps=1))
    table = weights(tmp_path)["language_model.model.embed_tokens.weight"].float()
    used = table.any(dim=1)
    assert not used[1024:29871].any() and used[31744:32000].all() and used[:1024].all()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": 0}, "steps is 0"), ({"minutes": -1.0}, "minutes"), ({"dtype": "int8"}, "dtype 'int8'")],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        options(tmp_path, tmp_path, **change)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"layers": 0}, "layers is 0; expected at least 1"),
        ({"vision_width": -64}, "vision_width is -64; expected at least 1"),
        ({"vision_width": 200}, "width 200 is not a multiple of its 3 attention heads"),
        ({"hidden_size": 66}, "hidden_size is 66; expected a multiple of 32"),
    ],
)
def test_sizes_of_which_no_model_can_be_made_are_refused(size: dict[str, int], message: str) -> None:
    with pytest.raises(SpecVLAError, match=message):
        TargetSizes(**size)


def test_a_torch_without_the_optimiser_is_refused_before_anything_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigurationError, match=r"has no optimiser Muon, .* install torch 2.9 or newer"):
        train_target(TargetOptions(data=(tmp_path,), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_held_out_frames_are_measured(tmp_path: Path) -> None:
    record(tmp_path / "demonstrations", episodes=20, steps=2)
    data = tmp_path
    train_target(options(data, tmp_path / "run", steps=2, workers=1))
    with (tmp_path / "run" / "log.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert 0.0 <= float(row["accuracy_gripper"]) <= 1.0 and 0.0 <= float(row["validation_pointing"]) <= 1.0
    assert float(row["deviation_x"]) >= 0.0


def test_a_run_begins_with_the_weights_of_another(data: Path, tmp_path: Path) -> None:
    train_target(options(data, tmp_path / "first", steps=20))
    train_target(options(data, tmp_path / "second", start=tmp_path / "first", steps=1, learning_rate=1e-9))
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    # A step that is next to none may still tip a weight over to the next bfloat16.
    assert all(torch.allclose(first[name], second[name], rtol=0.01) for name in first)


def test_a_run_begins_with_a_checkpoint(data: Path, tmp_path: Path) -> None:
    train_target(options(data, tmp_path / "first", steps=20))
    start = tmp_path / "first" / "checkpoint"
    train_target(options(data, tmp_path / "second", start=start, steps=1, learning_rate=1e-9))
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.allclose(first[name], second[name], rtol=0.01) for name in first)
    larger = dataclasses.replace(SIZES, layers=2)
    with pytest.raises(ConfigurationError, match="give the same"):
        train_target(options(data, tmp_path / "third", start=start, sizes=larger))


def test_a_compiled_model_learns_the_same(data: Path, tmp_path: Path) -> None:
    train_target(options(data, tmp_path / "plain", steps=3))
    train_target(options(data, tmp_path / "compiled", steps=3, compile=True))
    plain, compiled = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    # Muon makes small gradients as large as any, and rounding with them.
    off = [float((plain[name].float() - compiled[name].float()).abs().max()) for name in plain]
    assert max(off) < 0.02


def test_a_start_that_is_none_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist; start from the output folder"):
        train_target(options(data, tmp_path / "second", start=tmp_path / "nowhere"))
    train_target(options(data, tmp_path / "first", steps=1))
    larger = dataclasses.replace(SIZES, layers=2)
    with pytest.raises(ConfigurationError, match="give the same"):
        train_target(options(data, tmp_path / "second", start=tmp_path / "first", sizes=larger))
