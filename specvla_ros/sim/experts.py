"""Scripted experts: they read the simulator's own positions and act as a policy would, one step at a time.

A policy that learns from them sees one picture and no history, so what an expert does follows from where things are in
that very step: it never waits, and nothing depends on what it was about before. All it remembers is where the object
stood when it was last not held. How far the fingers are closed is a
matter of a few grey pixels; so while they close the hand already rises, slowly enough to stay where it takes hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specvla_ros.errors import ConfigurationError
from specvla_ros.sim.libero import Frame, LiberoEnvironment

TOP_SPEED, SLOWING = 0.88, 0.038
"""Of a motion, as a part of the controller's largest, and metres to a way-point at which it has lost a quarter."""
PUSH, PUSH_REACH = 0.12, 0.006
"""Added to the motion along each axis, in full from so many metres on; the arm's friction would stop it short."""
AIM, AIM_DEPTH = 0.013, 0.006
"""Metres from the grasp, across and above, within which open fingers begin to close."""
CLOSING_DEPTH = 0.045
"""Metres above the grasp within which fingers that have begun to close go on."""
OPEN = 0.0765
"""Metres between the fingers from which on they count as open."""
HOVER = 0.08
CARRY = 0.09
"""Metres above grasp and destination while far away from them."""
LIFTED, SHIFTED = 0.015, 0.04
"""Metres above and beside where it stood at which an object is carried; closing fingers shift it by less."""
NEAR = 0.05
"""Metres between fingertips and grasp within which an object in the air is in the hand."""
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
        drag: metres by which the outer finger then drags the rim along until the inner one is there.
        rise: upward speed while the fingers close, as a part of the controller's largest.
    """

    depth: float
    rim: float = 0.0
    drag: float = 0.0
    rise: float = 0.12


BODY = Grasp(depth=0.03)
BOWL = Grasp(depth=0.034, rim=0.03, drag=0.015)
DRAWER_BOWL = Grasp(depth=0.016, rim=0.02, drag=0.025, rise=0.1)
"""The drawer's front stops the outer finger half a finger deep."""
FINGERTIP = 0.01
"""Metres: the fingers never aim lower than this above an object's foot, so that they stay off the table."""


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
        self._standing = self._foot()

    def act(self, frame: Frame) -> NDArray[np.float64]:
        """(7,) action in a policy's convention for the scene as it stands in `frame`."""
        assert frame.end_effector is not None
        hand = frame.end_effector.position
        to_grasp = self.grasp_point() - hand
        is_near = bool(np.linalg.norm(to_grasp) < NEAR)
        is_held = self._scene.holds(self._object) or (is_near and self._is_carried())
        if not is_held:
            self._standing = self._foot()
        if is_near and self._is_down():
            return _action(np.array([0.0, 0.0, RETREAT]), gripper=1.0)
        if is_held and self._is_carried():
            return _action(_towards(self._carry()), gripper=0.0)
        is_open = frame.end_effector.opening > OPEN
        if is_held or self._is_reached(to_grasp, AIM_DEPTH if is_open else CLOSING_DEPTH):
            return _action(np.array([0.0, 0.0, self._rise()]), gripper=0.0)
        return _action(_towards(_approach(to_grasp, is_open)), gripper=1.0)

    def grasp_point(self) -> NDArray[np.float64]:
        """(3,) where the fingertips go."""
        low, high = self._scene.bounds(self._object)
        middle = (low + high) / 2.0
        height = max(high[2] - self._grasp.depth, low[2] + FINGERTIP)
        return np.array([middle[0], middle[1] + self._side * self._grasp.rim, height])

    def landmarks(self, frame: Frame) -> NDArray[np.float64]:
        """(3, 3) metres: the gripper, the point at which the object is taken, and the destination.

        Gripper and grasp stay as they are to each other while the object is held, a few centimetres apart at most.
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

    def _is_reached(self, to_grasp: NDArray[np.float64], depth: float) -> bool:
        outward = -self._side * to_grasp[1]
        return bool(abs(to_grasp[0]) < AIM and -AIM < outward < self._grasp.drag + AIM and to_grasp[2] > -depth)

    def _lifted(self) -> float:
        """Metres above where the object last stood."""
        return float((self._foot() - self._standing)[2])

    def _is_carried(self) -> bool:
        beside = np.linalg.norm((self._foot() - self._standing)[:2])
        return self._lifted() > LIFTED or bool(beside > SHIFTED)

    def _rise(self) -> float:
        """Upward motion while the fingers close: the faster the higher the object already is."""
        return self._grasp.rise + (TOP_SPEED - self._grasp.rise) * float(np.clip(self._lifted() / LIFTED, 0.0, 1.0))

    def _foot(self) -> NDArray[np.float64]:
        """(3,) the object's lowest point in its middle."""
        low, high = self._scene.bounds(self._object)
        return np.array([*(low + high)[:2] / 2.0, low[2]])

    def _to_destination(self) -> NDArray[np.float64]:
        """(3,) from the object's foot to where that should stand."""
        return self._scene.position(self._destination) - self._foot()

    def _is_down(self) -> bool:
        way = self._to_destination()
        return bool(np.linalg.norm(way[:2]) < 0.015 and way[2] > -0.015)

    def _carry(self) -> NDArray[np.float64]:
        """(3,) up first, then over, then down along a cone above the destination."""
        way, foot = self._to_destination(), self._foot()
        distance = float(np.linalg.norm(way[:2]))
        destination_height = foot[2] + way[2]
        high = max(destination_height, self._standing[2]) + CARRY
        height = min(high, destination_height + 1.5 * max(0.0, distance - 0.01))
        missing = height - foot[2]
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


def _approach(to_grasp: NDArray[np.float64], is_open: bool) -> NDArray[np.float64]:
    """(3,) towards the grasp down a cone, so that the hand comes from above and never waits over it.

    Fingers that are not open yet stay above, where they cannot be taken for ones that close.
    """
    distance = float(np.linalg.norm(to_grasp[:2]))
    height = min(HOVER, 2.0 * max(0.0, distance - 0.005)) if is_open else HOVER
    return to_grasp + np.array([0.0, 0.0, height])


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
