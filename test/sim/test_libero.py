"""Real LIBERO scenes in MuJoCo."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from specvla_ros.errors import ConfigurationError, SimulationError
from specvla_ros.sim.libero import LiberoEnvironment, find_task, list_tasks, to_libero_action

pytest.importorskip("libero", reason="LIBERO is not installed: pip install 'specvla_ros[sim]'")

STEPS = 8
ROLLOUT = f"""
import sys, hashlib
import numpy as np
from specvla_ros.sim.libero import LiberoEnvironment, find_task
environment = LiberoEnvironment(find_task("libero_object", 0), image_size=64)
for episode in map(int, sys.argv[1].split(",")):
    frame = environment.reset(episode, seed=3)
    for values in np.random.default_rng(0).uniform(-0.5, 0.5, ({STEPS}, 7)):
        frame = environment.step(values)
    print(hashlib.sha256(environment.state().tobytes() + frame.image.tobytes()).hexdigest())
"""


def rollout_hashes(episodes: str) -> list[str]:
    """State and picture after the same actions in each episode, from a process of its own."""
    command = [sys.executable, "-c", ROLLOUT, episodes]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()


@pytest.fixture(scope="module")
def environment() -> LiberoEnvironment:
    return LiberoEnvironment(find_task("libero_spatial", 0), image_size=128, wrist=True)


def test_an_episode_repeats_bit_for_bit_whatever_came_before_it() -> None:
    first, other, again = rollout_hashes("0,1,0")
    assert first == again and first != other
    assert rollout_hashes("0") == [first], "and in another process"


def test_fast_rendering_leaves_the_physics_alone(environment: LiberoEnvironment) -> None:
    def final_state(*, fast: bool) -> np.ndarray:
        environment._fast_rendering = fast
        environment.reset(0)
        for values in np.random.default_rng(1).uniform(-0.5, 0.5, (STEPS, 7)):
            environment.step(values)
        return environment.state()

    fast = final_state(fast=True)
    assert np.array_equal(fast, final_state(fast=False))


def test_a_frame_shows_the_scene_from_both_cameras(environment: LiberoEnvironment) -> None:
    frame = environment.reset(0)
    assert frame.step == 0 and not frame.success
    for image in (frame.image, frame.wrist_image):
        assert image is not None and image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert image.std() > 20, "a scene, not a blank"
    assert environment.step(np.full(7, 0.5), render=False).image is None


def test_the_arm_follows_the_action_and_the_gripper_its_sign(environment: LiberoEnvironment) -> None:
    environment.reset(0)
    simulator = environment._environment.sim

    def hand() -> np.ndarray:
        return simulator.data.get_site_xpos("gripper0_grip_site").copy()

    start = hand()
    for _ in range(10):
        environment.step(np.array([0, 0, 0.5, 0, 0, 0, 1.0]), render=False)
    assert hand()[2] - start[2] > 0.02
    opening = simulator.data.get_joint_qpos("gripper0_finger_joint1")
    for _ in range(10):
        environment.step(np.array([0, 0, 0, 0, 0, 0, 0.0]), render=False)
    assert simulator.data.get_joint_qpos("gripper0_finger_joint1") < opening - 0.01, "0 closes"


@pytest.mark.parametrize("values", [[np.nan] + [0.0] * 6, [0.0] * 6, [np.inf] * 7])
def test_an_action_that_is_not_seven_finite_numbers_moves_nothing(
    environment: LiberoEnvironment, values: list[float]
) -> None:
    environment.reset(0)
    before = environment.state()
    with pytest.raises(SimulationError, match="expected seven finite numbers"):
        environment.step(np.array(values))
    assert np.array_equal(environment.state(), before)


def test_the_gripper_is_open_or_closed_in_the_simulators_own_sign() -> None:
    assert to_libero_action(np.array([0.1] * 6 + [1.0])).tolist() == [0.1] * 6 + [-1.0]
    assert to_libero_action(np.array([0.1] * 6 + [0.2])).tolist() == [0.1] * 6 + [1.0]


@pytest.mark.parametrize(
    ("suite", "count"),
    [("libero_spatial", 10), ("libero_object", 10), ("libero_goal", 10), ("libero_10", 10), ("libero_90", 90)],
)
def test_every_suite_lists_its_tasks(suite: str, count: int) -> None:
    tasks = list_tasks(suite)
    assert [task.index for task in tasks] == list(range(count))
    assert all(task.language == task.language.lower().strip() for task in tasks)
    assert all(task.scene_file.is_file() for task in tasks)


def test_a_name_that_does_not_exist_is_answered_with_those_that_do(environment: LiberoEnvironment) -> None:
    with pytest.raises(ConfigurationError, match="suites are libero_spatial, libero_object"):
        list_tasks("libero")
    with pytest.raises(ConfigurationError, match="libero_goal has tasks 0 to 9"):
        find_task("libero_goal", 10)
    with pytest.raises(ConfigurationError, match="episodes 0 to 49"):
        environment.reset(50)
