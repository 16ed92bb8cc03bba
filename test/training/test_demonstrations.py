"""Demonstration files: ours and LIBERO's own, whole and broken."""

from __future__ import annotations

import importlib
import sys
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from specvla_ros.errors import DataError
from specvla_ros.sim.libero import Task, to_libero_action
from specvla_ros.training.demonstrations import (
    NO_MOTION,
    Demonstration,
    append_demonstration,
    demonstration_file,
    demonstration_files,
    instruction_of,
    read_demonstrations,
    read_record,
    record_failure,
)

TASK = Task("libero_spatial", 0, "pick up the bowl", Path("scenes/pick_up_the_bowl.bddl"), Path("none"))


def demonstration(seed: int = 0, steps: int = 4) -> Demonstration:
    random = np.random.default_rng(seed)
    actions = random.uniform(-1.0, 1.0, (steps, 7))
    actions[:, 6] = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)
    return Demonstration(
        language=TASK.language,
        images=random.integers(0, 256, (steps, 16, 16, 3), dtype=np.uint8),
        actions=actions,
        states=random.normal(size=(steps, 5)),
        end_effector=random.normal(size=(steps, 6)),
        gripper_opening=random.uniform(0.0, 0.08, steps),
        landmarks=random.uniform(size=(steps, 3, 5)).astype(np.float32),
        seed=seed,
    )


def record(directory: Path, *seeds: int) -> Path:
    path = demonstration_file(directory, TASK)
    for seed in seeds:
        append_demonstration(path, TASK, demonstration(seed, steps=3 + seed))
    return path


def assert_same(found: Demonstration, expected: Demonstration) -> None:
    for field in fields(Demonstration):
        value, wanted = getattr(found, field.name), getattr(expected, field.name)
        if not isinstance(wanted, np.ndarray):
            assert value == wanted, field.name
        elif field.name == "gripper_opening":  # split into two fingers and put together again
            np.testing.assert_allclose(value, wanted, rtol=1e-15)
        else:
            assert value.dtype == wanted.dtype and np.array_equal(value, wanted), field.name


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = record(tmp_path, 0, 1, 5)
    assert path == tmp_path / "libero_spatial" / "pick_up_the_bowl_demo.hdf5"
    assert demonstration_files([tmp_path]) == [path]
    for found, seed in zip(read_demonstrations(path), (0, 1, 5), strict=True):
        assert_same(found, demonstration(seed, steps=3 + seed))
    assert read_record(path).seeds == {0, 1, 5}
    with h5py.File(path) as file:
        assert (file["data"].attrs["num_demos"], file["data"].attrs["total"]) == (3, 3 + 4 + 8)
        assert file["data/demo_2/dones"][:].tolist() == [0] * 7 + [1]
        assert np.array_equal(file["data/demo_2"].attrs["init_state"], demonstration(5, steps=8).states[0])


def test_the_order_is_that_of_recording_beyond_ten(tmp_path: Path) -> None:
    path = record(tmp_path, *range(12))
    assert [episode.seed for episode in read_demonstrations(path)] == list(range(12))


def test_liberos_own_file_has_neither_landmarks_nor_seeds(tmp_path: Path) -> None:
    path = tmp_path / "KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5"
    wanted = demonstration()
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update({"num_demos": 1, "total": 4, "tag": "libero-v1", "env_args": "{}"})
        group = data.create_group("demo_0")
        group.attrs.update({"num_samples": 4, "model_file": "<mujoco/>", "init_state": wanted.states[0]})
        group["actions"], group["states"] = wanted.actions, wanted.states
        group["dones"], group["rewards"], group["robot_states"] = np.zeros(4), np.zeros(4), np.zeros((4, 9))
        group["obs/agentview_rgb"] = group["obs/eye_in_hand_rgb"] = wanted.images
        group["obs/ee_states"], group["obs/joint_states"] = wanted.end_effector, np.zeros((4, 7))
        group["obs/ee_pos"], group["obs/ee_ori"] = wanted.end_effector[:, :3], wanted.end_effector[:, 3:]
        group["obs/gripper_states"] = np.column_stack([wanted.gripper_opening / 2, -wanted.gripper_opening / 2])
    (found,) = read_demonstrations(path)
    assert_same(found, replace(wanted, language="turn on the stove", landmarks=None, seed=None))


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("pick_up_the_bowl_and_place_it_on_the_plate_demo.hdf5", "pick up the bowl and place it on the plate"),
        ("KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5", "turn on the stove"),
        ("LIVING_ROOM_SCENE2_put_both_in_the_basket_demo.hdf5", "put both in the basket"),
        ("STUDY_SCENE1_pick_up_the_book_demo.hdf5", "pick up the book"),
        ("pick_up_the_cup.hdf5", "pick up the cup"),
    ],
)
def test_the_instruction_is_the_files_name_without_its_scene(name: str, instruction: str) -> None:
    assert instruction_of(Path("libero_90") / name) == instruction


def test_an_episode_cut_short_is_ignored_and_overwritten(tmp_path: Path) -> None:
    path = record(tmp_path, 0, 1)
    with h5py.File(path, "a") as file:
        del file["data/demo_1"].attrs["num_samples"]
        del file["data/demo_1/states"]
    assert [episode.seed for episode in read_demonstrations(path)] == [0]
    assert read_record(path).seeds == {0}
    record(tmp_path, 2)
    first, second = read_demonstrations(path)
    assert_same(first, demonstration(0, steps=3))
    assert_same(second, demonstration(2, steps=5))
    with h5py.File(path) as file:
        assert list(file["data"]) == ["demo_0", "demo_1"]
        assert (file["data"].attrs["num_demos"], file["data"].attrs["total"]) == (2, 8)


def test_steps_that_neither_move_nor_change_the_gripper_are_left_out() -> None:
    actions = np.zeros((7, 7))
    actions[:, 6] = [-1, -1, -1, 1, 1, 1, -1]
    actions[0, 0] = 0.5
    actions[2, 4] = 1.01 * NO_MOTION
    actions[4, :6] = 0.9 * NO_MOTION / np.sqrt(6.0)
    # Kept: 0 and 2 move, 3 and 6 change the gripper. Left out: 1, 4 (moves too little) and 5.
    assert replace(demonstration(steps=7), actions=actions).moving_steps().tolist() == [0, 2, 3, 6]


def test_a_policys_gripper_is_1_where_liberos_is_open() -> None:
    episode = demonstration()
    assert episode.actions[:, 6].tolist() == [-1, -1, 1, 1]
    actions = episode.policy_actions()
    assert actions[:, 6].tolist() == [1, 1, 0, 0]
    assert np.array_equal([to_libero_action(values) for values in actions], episode.actions)


@pytest.mark.parametrize("broken", ["not HDF5", "truncated", "empty"])
def test_a_broken_file_is_named(tmp_path: Path, broken: str) -> None:
    path = record(tmp_path, 0)
    whole = path.read_bytes()
    path.write_bytes({"not HDF5": b"no demonstrations", "truncated": whole[: len(whole) // 2], "empty": b""}[broken])
    for read in (read_record, lambda path: list(read_demonstrations(path))):
        with pytest.raises(DataError, match=r"pick_up_the_bowl_demo\.hdf5 is no HDF5 file or is cut short"):
            read(path)


def test_a_file_with_another_layout_says_what_is_missing(tmp_path: Path) -> None:
    path = record(tmp_path, 0)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/agentview_rgb"]
    with pytest.raises(DataError, match=r"pick_up_the_bowl_demo\.hdf5: demo_0 is incomplete: .*agentview_rgb"):
        list(read_demonstrations(path))
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(DataError, match=r"pick_up_the_bowl_demo\.hdf5: no group 'data'"):
        list(read_demonstrations(path))


@pytest.mark.parametrize("shape", [(3, 14), (4, 7)])
def test_actions_that_do_not_fit_the_images_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = record(tmp_path, 0)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/actions"]
        file["data/demo_0/actions"] = np.zeros(shape)
    wanted = rf"demo_0 has 3 images and actions of shape \({shape[0]}, {shape[1]}\); expected \(3, 7\)"
    with pytest.raises(DataError, match=wanted):
        list(read_demonstrations(path))


def test_where_there_are_no_demonstrations_the_error_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="specvla train demos"):
        demonstration_files([tmp_path])


def test_failed_seeds_are_remembered_beside_the_episodes(tmp_path: Path) -> None:
    path = demonstration_file(tmp_path, TASK)
    assert read_record(path).failed_seeds == read_record(path).seeds == set()
    record_failure(path, TASK, 7)
    assert list(read_demonstrations(path)) == []
    record(tmp_path, 1)
    record_failure(path, TASK, 9)
    assert (read_record(path).failed_seeds, read_record(path).seeds) == ({7, 9}, {1})
    assert len(list(read_demonstrations(path))) == 1


def test_without_h5py_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "specvla_ros.training.demonstrations"
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DataError, match="pip install h5py"):
        importlib.import_module(name)
