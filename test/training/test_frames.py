"""Demonstration files to frames, once, and the statistics and tokens of their actions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from training_recordings import record

from specvla_ros.errors import ConfigurationError, DataError
from specvla_ros.training import frames
from specvla_ros.training.demonstrations import read_demonstrations
from specvla_ros.training.frames import FrameStore, load_frames
from specvla_ros.vla.actions import ActionTokenizer, NormStats
from specvla_ros.vla.images import prepare_uncropped


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demonstrations")
    record(directory, "open_the_drawer", episodes=20, steps=4)
    record(directory, "lift_the_cup", episodes=2, steps=20, landmarks=False)
    return directory


@pytest.fixture(scope="module")
def cache(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    load_frames([data], cache, workers=1)
    return cache


@pytest.fixture
def store(data: Path, cache: Path) -> FrameStore:
    return load_frames([data], cache, workers=1)


def test_a_frame_is_what_evaluation_sees_before_its_crop(store: FrameStore, data: Path) -> None:
    episode = next(read_demonstrations(next(data.rglob("open*.hdf5"))))
    row = int(np.flatnonzero([store.instructions[index] == "open the drawer" for index in store.languages])[0])
    assert np.array_equal(store.images[row], prepare_uncropped(episode.images[0]))
    assert np.array_equal(store.actions[row], episode.policy_actions()[0])
    assert episode.landmarks is not None
    assert np.array_equal(store.landmarks[row], episode.landmarks[0])
    assert isinstance(store.images, np.memmap) and len(store) == 20 * 4 + 2 * 20


def test_whole_episodes_are_held_out(store: FrameStore) -> None:
    assert len(set(store.episodes[store.validation])) == 1
    held_out = int(store.episodes[store.validation][0])
    assert store.validation[store.episodes == held_out].all()
    assert store.sources[held_out].endswith("episode 19")


def test_landmarks_that_a_file_lacks_are_nan(store: FrameStore) -> None:
    lacking = store.languages == store.instructions.index("lift the cup")
    assert np.isnan(store.landmarks[lacking]).all() and np.isfinite(store.landmarks[~lacking]).all()


def test_steps_near_a_change_of_the_gripper_are_known(store: FrameStore) -> None:
    episode = store.near_gripper[store.languages == store.instructions.index("lift the cup")][:20]
    assert np.flatnonzero(episode).tolist() == list(range(7, 14))


def test_the_statistics_are_openvlas(store: FrameStore) -> None:
    ((key, entry),) = store.norm_stats().items()
    train = store.actions[~store.validation]
    assert key == "libero_spatial_no_noops"
    assert entry["num_trajectories"] == 21 and entry["num_transitions"] == len(train)
    assert entry["action"]["mask"] == [True] * 6 + [False]
    assert np.allclose(entry["action"]["q01"], np.quantile(train, 0.01, axis=0))
    assert np.allclose(entry["action"]["q99"], np.quantile(train, 0.99, axis=0))


def test_tokens_decode_to_the_actions(store: FrameStore) -> None:
    entry = store.norm_stats()[store.norm_stats_key]["action"]
    stats = NormStats.from_dict(entry, "test")
    decoded = stats.unnormalise(ActionTokenizer(32000).decode(store.tokens(32000)[5]))
    wanted = np.clip(store.actions[5], stats.low, stats.high)
    assert np.abs(decoded - wanted)[:6].max() <= (stats.high - stats.low)[:6].max() / 254
    assert round(decoded[6]) == store.actions[5, 6]


def test_unchanged_files_are_not_prepared_again(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr(frames, "_build", refuse)
    load_frames([data], cache)
    record(tmp_path, "lift_the_cup")
    with pytest.raises(AssertionError, match="prepared again"):
        load_frames([data, tmp_path], cache)


def test_a_disk_that_is_too_small_is_named_before_anything_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path / "data", steps=4)
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)._replace(free=4 * 224 * 224 * 3 - 1)
        patch.setattr(shutil, "disk_usage", lambda directory: usage)
        with pytest.raises(ConfigurationError, match=r"cache needs 0\.0 GB but its disk has 0\.0 GB free; make room"):
            load_frames([tmp_path / "data"], tmp_path / "cache", workers=1)
    assert not list((tmp_path / "cache").iterdir())


def test_no_demonstrations_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.hdf5 demonstrations"):
        load_frames([tmp_path], tmp_path / "cache")
