"""Which frames a training step sees."""

from __future__ import annotations

import numpy as np

from specvla_ros.training.batches import BatchSource
from specvla_ros.training.frames import FrameStore

COUNT = 400


def store(**changes: object) -> FrameStore:
    """Frames with the hand far from the object, all alike but for what a test changes."""
    landmarks = np.zeros((COUNT, 3, 5), np.float32)
    landmarks[:, 1, 0] = 0.5
    parts: dict[str, object] = {
        "images": np.zeros((COUNT, 2, 2, 3), np.uint8),
        "actions": np.tile([0.0] * 6 + [1.0], (COUNT, 1)),
        "landmarks": landmarks,
        "openings": np.zeros(COUNT, np.float32),
        "episodes": np.zeros(COUNT, np.int64),
        "languages": np.zeros(COUNT, np.int64),
        "validation": np.zeros(COUNT, bool),
        "near_gripper": np.zeros(COUNT, bool),
        "instructions": ["lift the cup"],
        "sources": ["cup.hdf5 episode 0"],
        "suites": ["libero_spatial"],
    }
    return FrameStore(**{**parts, **changes})  # type: ignore[arg-type]


def drawn(source: BatchSource, chosen: slice) -> float:
    """How many times as often as the others the chosen frames are drawn."""
    counts = np.bincount(np.concatenate([source.rows(step) for step in range(200)]), minlength=COUNT)
    rest = np.ones(COUNT, bool)
    rest[chosen] = False
    return float(counts[chosen].mean() / counts[rest].mean())


def source(frames: FrameStore) -> BatchSource:
    return BatchSource(frames, np.zeros((COUNT, 7), np.int64), batch_size=32, seed=0)


def test_an_open_hand_close_to_its_object_is_seen_more_often_than_one_that_carries_it() -> None:
    landmarks, actions = store().landmarks.copy(), store().actions.copy()
    landmarks[:100, 1, 0] = 0.05
    actions[50:100, 6] = 0.0
    sampled = source(store(landmarks=landmarks, actions=actions))
    assert 2.5 < drawn(sampled, slice(0, 50)) < 3.5
    assert 0.5 < drawn(sampled, slice(50, 100)) < 1.2


def test_steps_near_a_change_of_the_gripper_are_seen_more_often_also_without_landmarks() -> None:
    near = np.zeros(COUNT, bool)
    near[:50] = True
    unknown = np.full((COUNT, 3, 5), np.nan, np.float32)
    assert 2.5 < drawn(source(store(near_gripper=near, landmarks=unknown)), slice(0, 50)) < 3.5


def test_held_out_frames_are_never_drawn_and_a_step_draws_the_same_again() -> None:
    held_out = np.zeros(COUNT, bool)
    held_out[:200] = True
    sampled = source(store(validation=held_out))
    assert all(sampled.rows(step).min() >= 200 for step in range(50))
    assert np.array_equal(sampled.rows(7), source(store(validation=held_out)).rows(7))
