from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import draft_data
import pytest
import torch
from models import greedy_tokens

from specvla_ros import load_policy
from specvla_ros.errors import DataError
from specvla_ros.policy import expand_thresholds
from specvla_ros.training.demonstrations import demonstration_files, read_demonstrations
from specvla_ros.training.regenerate import RegenerateOptions, regenerate, thin_out
from specvla_ros.training.regenerated import (
    EpisodePlan,
    RegeneratedBatch,
    RegeneratedFrames,
    RegenerationPlan,
    frame_bytes,
)
from specvla_ros.vla.images import prepare_image, processor_pixels


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RegenerateOptions:
    """Twenty episodes of three steps, two of which move, of each of two tasks; regenerated already."""
    root = tmp_path_factory.mktemp("regenerated")
    draft_data.write_target(root / "target")
    draft_data.write_demonstrations(root / "demonstrations", episodes=20, steps=3)
    options = RegenerateOptions(
        str(root / "target"), (root / "demonstrations",), root / "out", max_frames=0, device="cpu", batch_size=2
    )
    regenerate(options)
    return options


def test_tokens_and_features_are_those_of_greedy_decoding_from_the_prompt_alone(options: RegenerateOptions) -> None:
    policy = load_policy(options.checkpoint, device="cpu")
    path = demonstration_files(options.demonstrations)[0]
    demonstration = next(read_demonstrations(path))
    frame = RegeneratedFrames(options.output, held_out=False)[1]
    pixels = processor_pixels(prepare_image(demonstration.images[2], "libero"))
    assert frame.tokens.tolist() == greedy_tokens(policy.decoder.target, frame.input_ids, pixels)
    tokens, _ = policy.decoder.decode(frame.input_ids, pixels, expand_thresholds(0))
    prefix = policy.decoder._prefix
    assert tokens == frame.tokens.tolist()
    assert prefix.length == len(frame.features) == len(frame.input_ids) + 256 + 6
    torch.testing.assert_close(frame.features.float(), prefix.features[: prefix.length], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(frame.patches.float(), prefix.next_embeddings[:256], atol=2e-3, rtol=2e-3)


def test_every_twentieth_episode_is_held_out_and_steps_without_motion_are_left_out(options: RegenerateOptions) -> None:
    plan = RegenerationPlan.read(options.output)
    assert [episode.steps for episode in plan.episodes] == [[0, 2]] * 40
    assert [episode.episode for episode in plan.episodes if episode.held_out] == [19, 19]
    assert len(RegeneratedFrames(options.output, held_out=False)) == 76
    assert len(RegeneratedFrames(options.output, held_out=True)) == 4


def test_a_task_recorded_in_two_folders_is_kept_apart(options: RegenerateOptions, tmp_path: Path) -> None:
    draft_data.write_demonstrations(tmp_path / "more", episodes=1, steps=3)
    both = replace(options, demonstrations=(*options.demonstrations, tmp_path / "more"), output=tmp_path / "out")
    regenerate(both)
    episodes = RegenerationPlan.read(both.output).episodes
    assert len({episode.shard(both.output) for episode in episodes}) == len(episodes) == 42


def test_a_stopped_run_goes_on_where_it_stood(options: RegenerateOptions) -> None:
    shards = sorted(options.output.glob("*.safetensors"))
    kept, lost = shards[0], shards[-1]
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    with pytest.raises(DataError, match="1 of 2 episodes are not regenerated"):
        RegeneratedFrames(options.output, held_out=True)
    regenerate(options)
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content


def test_a_folder_of_another_target_is_refused(options: RegenerateOptions, tmp_path: Path) -> None:
    draft_data.write_target(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match="another output folder"):
        regenerate(replace(options, checkpoint=str(tmp_path / "other")))


def test_episodes_whose_plan_is_gone_do_not_count_as_another_targets(
    options: RegenerateOptions, tmp_path: Path
) -> None:
    shutil.copytree(options.output, tmp_path / "out")
    (tmp_path / "out" / "plan.json").unlink()
    draft_data.write_target(tmp_path / "other", seed=1)
    with pytest.raises(DataError, match=r"holds regenerated episodes and no plan\.json"):
        regenerate(replace(options, checkpoint=str(tmp_path / "other"), output=tmp_path / "out"))


def test_the_images_of_an_upright_camera_are_not_turned(options: RegenerateOptions, tmp_path: Path) -> None:
    upright = replace(options, preparation="centre_crop", max_frames=40, output=tmp_path)
    regenerate(upright)
    demonstration = next(read_demonstrations(demonstration_files(options.demonstrations)[0]))
    frame = RegeneratedFrames(tmp_path, held_out=False)[0]
    pixels = processor_pixels(prepare_image(demonstration.images[0], "centre_crop"))
    patches = load_policy(options.checkpoint, device="cpu").decoder.target.project_image(pixels)
    torch.testing.assert_close(frame.patches.float(), patches.detach(), atol=2e-3, rtol=2e-3)
    with pytest.raises(DataError, match="image_preparation were others"):
        regenerate(replace(upright, preparation="libero"))


def test_a_folder_without_a_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"plan\.json is missing"):
        RegeneratedFrames(tmp_path, held_out=False)


def test_thinning_out_spreads_the_steps_evenly() -> None:
    episodes = [EpisodePlan("a", index, list(range(10))) for index in range(10)]
    thin = thin_out(episodes, 20)
    assert [episode.steps for episode in thin] == [[0, 5]] * 10
    assert [(episode.episode, episode.steps) for episode in thin_out(episodes, 4)] == [
        (0, [0]),
        (2, [5]),
        (5, [0]),
        (7, [5]),
    ]
    assert thin_out(episodes, 0) == thin_out(episodes, 1000) == episodes


def test_a_batch_of_different_prompts_is_filled_up_behind_the_action(options: RegenerateOptions) -> None:
    frames = RegeneratedFrames(options.output, held_out=False)
    short, long = sorted([frames[0], frames[75]], key=lambda frame: len(frame.input_ids))
    batch = RegeneratedBatch.of([short, long])
    assert len(short.input_ids) < len(long.input_ids)
    assert batch.lengths.tolist() == [len(short.input_ids) + 256, len(long.input_ids) + 256]
    size = len(short.input_ids)
    assert batch.input_ids[0, size : size + 6].tolist() == short.tokens[:6].tolist()
    assert torch.equal(batch.features[0, : len(short.features)], short.features)
    assert torch.equal(batch.features[1], long.features)


def test_a_step_takes_the_disk_space_that_is_announced(options: RegenerateOptions) -> None:
    frame = RegeneratedFrames(options.output, held_out=False)[0]
    stored = frame.patches.nbytes + frame.features.nbytes
    assert stored == frame_bytes(16, len(frame.input_ids))
