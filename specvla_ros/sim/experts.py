"""Scripted experts: they read the simulator's own positions and act as a policy would, one step at a time.

A policy that learns from them sees one picture and no history, so what an expert does must follow from where things
are: it never waits, it closes and opens the fingers while already moving on, and each way-point gives way to the next
by distance. How far the fingers are closed is a matter of a few grey pixels, so nothing depends on that: the hand rises
as slowly as the fingers need until the object comes along, and the faster the higher that is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import ConfigurationError
from specvla_ros.sim.libero import Frame, LiberoEnvironment

CONTROLLER_SCALE = 0.05
"""Metres that a motion of 1 asks of LIBERO's controller in one step."""
TOP_SPEED, SLOWING = 0.88, 0.038
"""Of a motion, as a part of the controller's largest, and metres to a way-point at which it has lost a quarter."""
PUSH, PUSH_REACH = 0.12, 0.006
"""Added to the motion along each axis, in full from so many metres on; the arm's friction would stop it short."""
AIM, AIM_DEPTH = 0.010, 0.005
"""Metres to a way-point, across and down, at which it counts as reached."""
HOVER = 0.08
CARRY = 0.09
"""Metres above grasp and destination while far away from them."""
LIFTED = 0.015
"""Metres above where it stood at which an object is certainly held."""
LOST = 0.05
"""Metres between fingertips and grasp at which it has failed."""
RETREAT = 0.25
"""Speed, as a part of the controller's, at which the hand leaves an object that it has let go."""
FINGER_REACH = 0.045
"""Metres from the open hand's middle to the outside of a finger."""
CLEARANCE = 0.1
"""A neighbour further away than this in metres is not in the way of the outer finger."""


@dataclass(frozen=True, slots=True)
class Grasp:
    """Where the fingers, which close along the world's y axis, take hold of an object.

    Attributes:
        depth: of the fingertips below the object's highest point, in metres.
        rim: distance of the open hand's middle from the object's along y, in metres: 0 takes the object itself, more
            takes it by its rim, and the less the more room the outer finger has.
        rise: upward speed while the fingers close, as a part of the controller's largest.
    """

    depth: float
    rim: float = 0.0
    rise: float = 0.12


BODY = Grasp(depth=0.03)
BOWL = Grasp(depth=0.034, rim=0.03)
DRAWER_BOWL = Grasp(depth=0.016, rim=0.02, rise=0.1)
"""The drawer's front stops the outer finger half a finger deep."""
FINGERTIP = 0.01
"""Metres: the fingers never aim lower than this above an object's foot, so that they stay off the table."""


class Phase(enum.Enum):
    """What the expert is about."""

    APPROACH = "approach"
    CLOSE = "close"
    CARRY = "carry"
    RELEASE = "release"


class PickAndPlaceExpert:
    """Takes the goal's object and puts it on, or into, the goal's destination; tries again when it is lost.

    Raises:
        ConfigurationError: the task's goal is not one `On` or `In`.
    """

    def __init__(self, scene: LiberoEnvironment) -> None:
        if not can_solve(scene.goal):
            raise ConfigurationError(f"no expert for the goal {scene.goal}; expected one 'on' or 'in'")
        self._scene = scene
        _, self._object, self._destination = scene.goal[0]
        self._grasp = _choose_grasp(self._object, scene.initial_place(self._object))
        self._side = self._freer_side()
        self._phase = Phase.APPROACH
        self._start_height = 0.0

    def act(self, frame: Frame) -> NDArray[np.float64]:
        """(7,) action in a policy's convention for the scene as it stands in `frame`."""
        assert frame.end_effector is not None
        hand = frame.end_effector.position
        self._advance(hand)
        if self._phase is Phase.APPROACH:
            return _action(_towards(_approach(hand, self.grasp_point())), gripper=1.0)
        if self._phase is Phase.CLOSE:
            return _action(np.array([0.0, 0.0, self._rise()]), gripper=0.0)
        if self._phase is Phase.CARRY:
            return _action(_towards(self._carry()), gripper=0.0)
        return _action(np.array([0.0, 0.0, RETREAT]), gripper=1.0)

    def grasp_point(self) -> NDArray[np.float64]:
        """(3,) where the fingertips go."""
        low, high = self._scene.bounds(self._object)
        middle = (low + high) / 2.0
        height = max(high[2] - self._grasp.depth, low[2] + FINGERTIP)
        return np.array([middle[0], middle[1] + self._side * self._grasp.rim, height])

    def landmarks(self, frame: Frame) -> NDArray[np.float64]:
        """(3, 3) metres: the gripper, the point at which the object is taken, and the destination.

        Gripper and grasp are one point when the object is held, so who knows both knows whether it is.
        """
        assert frame.end_effector is not None
        return np.stack([frame.end_effector.position, self.grasp_point(), self._scene.position(self._destination)])

    def _freer_side(self) -> int:
        """1 to take a rim on the side of +y, -1 where another object stands closer there; they decide in this order."""
        if not self._grasp.rim:
            return 1
        low, high = self._scene.bounds(self._object)
        middle = (low + high) / 2.0
        room: dict[int, float] = {}
        for side in (1, -1):
            outer_finger = middle[:2] + np.array([0.0, side * (self._grasp.rim + FINGER_REACH)])
            neighbours = [self._scene.bounds(other) for other in self._scene.objects if other != self._object]
            distances = [
                float(np.linalg.norm((lowest + highest)[:2] / 2.0 - outer_finger))
                for lowest, highest in neighbours
                if highest[2] > middle[2]
            ]
            room[side] = min([CLEARANCE, *distances])
        return max(room, key=room.__getitem__)

    def _advance(self, hand: NDArray[np.float64]) -> None:
        """Go on to the next phase, or back to the first when the object is not where it should be."""
        to_grasp = self.grasp_point() - hand
        if self._phase is Phase.APPROACH and np.abs(to_grasp[:2]).max() < AIM and to_grasp[2] > -AIM_DEPTH:
            self._phase, self._start_height = Phase.CLOSE, self._bottom()
        elif np.linalg.norm(to_grasp) > LOST:
            self._phase = Phase.APPROACH
        elif self._phase is Phase.CLOSE and self._lifted() > LIFTED:
            self._phase = Phase.CARRY
        elif self._phase is Phase.CARRY and self._is_down():
            self._phase = Phase.RELEASE

    def _lifted(self) -> float:
        """Metres above where the object stood."""
        return self._bottom() - self._start_height

    def _rise(self) -> float:
        """Upward motion while the fingers close."""
        return self._grasp.rise + (TOP_SPEED - self._grasp.rise) * float(np.clip(self._lifted() / LIFTED, 0.0, 1.0))

    def _bottom(self) -> float:
        return float(self._scene.bounds(self._object)[0][2])

    def _to_destination(self) -> NDArray[np.float64]:
        """(3,) from the object's lowest point in its middle to where that should stand."""
        low, high = self._scene.bounds(self._object)
        middle = np.array([*(low + high)[:2] / 2.0, low[2]])
        return self._scene.position(self._destination) - middle

    def _is_down(self) -> bool:
        way = self._to_destination()
        return bool(np.linalg.norm(way[:2]) < 0.015 and way[2] > -0.015)

    def _carry(self) -> NDArray[np.float64]:
        """(3,) up first, then over, then down along a cone above the destination."""
        way = self._to_destination()
        bottom = self._bottom()
        distance = float(np.linalg.norm(way[:2]))
        destination_height = bottom + way[2]
        high = max(destination_height, self._start_height) + CARRY
        height = min(high, destination_height + 1.5 * max(0.0, distance - AIM))
        missing = height - bottom
        # The way across opens as the height is reached.
        across = np.clip(1.0 - (missing - 0.02) / 0.05, 0.0, 1.0) * way[:2]
        return np.array([*across, missing])


def can_solve(goal: tuple[tuple[str, ...], ...]) -> bool:
    """Whether the goal is to put one thing somewhere."""
    return len(goal) == 1 and goal[0][0] in ("on", "in")


def _choose_grasp(name: str, place: str) -> Grasp:
    """By the kind of object and what it stands on or in."""
    if not name.startswith("akita_black_bowl"):
        return BODY
    return DRAWER_BOWL if "cabinet" in place and place.endswith("region") else BOWL


def _approach(hand: NDArray[np.float64], grasp: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) towards the grasp down a cone, so that the hand comes from above and never waits over it."""
    way = grasp - hand
    distance = float(np.linalg.norm(way[:2]))
    height = min(HOVER, 2.0 * max(0.0, distance - AIM / 2.0))
    way[2] += height
    return way


def _towards(way: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) motion in the controller's units for a step along `way`, in metres.

    Smooth in where things are, so that a learner that sees them a little off acts a little off.
    """
    distance = float(np.linalg.norm(way))
    speed = TOP_SPEED * np.tanh(distance / SLOWING)
    return speed / max(distance, 1e-9) * way + PUSH * np.tanh(way / PUSH_REACH)


def _action(motion: NDArray[np.float64], gripper: float) -> NDArray[np.float64]:
    """(7,) a step of that motion; the hand keeps its orientation."""
    return np.array([*motion, 0.0, 0.0, 0.0, gripper])
