"""The movement of a scene from frame to frame: the camera drives, and so do vehicles and people.

Nothing turns, and people do not move their legs. What would run into another thing, leave its lane
or pavement, or come too close to the camera waits; so does the camera behind a thing.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipa.streets.scene import Footprint, Plan, Pose, Scene, Thing

INTERVAL = 0.06  # seconds between two frames; Cityscapes' videos have 17 in a second
_ROOM = 3.0  # metres before the camera that stay free


class Traffic(NamedTuple):
    """Metres to the right, and along the street, from one frame to the next."""

    camera: tuple[float, float]
    things: list[tuple[float, float]]


def sample_traffic(rng: np.random.Generator, scene: Scene) -> Traffic:
    """Draw the speeds of a scene's camera and things."""
    own, oncoming = rng.uniform(3.0, 9.0), rng.uniform(4.0, 9.0)
    ahead = own * rng.uniform(1.0, 1.4)  # one speed for all, so that queues stay queues
    camera = rng.normal(0.0, 0.3) * INTERVAL, own * INTERVAL
    moves = []
    for thing in scene.things:
        speed, way = rng.uniform(0.0, 1.0), 1 if rng.random() < 0.5 else -1
        x, z = _velocity(thing, scene.plan, speed, way, ahead, oncoming)
        moves.append((x * INTERVAL, z * INTERVAL))
    return Traffic(camera, moves)


def frames_of(scene: Scene, traffic: Traffic, count: int) -> Iterator[Scene]:
    """Yield the scene itself, and then as it is at each later frame."""
    for number in range(count):
        if number:
            scene = _step(scene, traffic)
        yield scene


def _velocity(
    thing: Thing, plan: Plan, speed: float, way: int, ahead: float, oncoming: float
) -> tuple[float, float]:
    """Return metres per second; `speed` is in [0, 1], `way` is 1 or -1, both for people."""
    cos, sin = math.cos(thing.heading), math.sin(thing.heading)
    if thing.kind in ("car", "truck", "bus"):
        side = 1 if thing.x > 0 else -1
        parked = abs(thing.x) > plan.edge(side) - plan.parking[(side + 1) // 2]
        fast = 0.0 if parked else ahead if cos > 0.5 else oncoming
        return -sin * fast, cos * fast
    if thing.kind == "rider_behind":
        return 0.0, 3.0 + 3.0 * speed
    if thing.kind == "rider":
        return cos * (2.0 + 3.0 * speed), sin * (2.0 + 3.0 * speed)
    if thing.kind == "person":
        walk = way * (0.5 + 1.3 * speed)
        side = 1 if thing.x > 0 else -1
        return (walk, 0.0) if abs(thing.x) < plan.edge(side) else (0.0, walk)
    return 0.0, 0.0


def _step(scene: Scene, traffic: Traffic) -> Scene:
    """Move the camera, then one thing after another, each if there is room."""
    pose = replace(
        scene.pose, x=scene.pose.x + traffic.camera[0], z=scene.pose.z + traffic.camera[1]
    )
    if any(_before(pose).meets(thing.footprint) for thing in scene.things):
        pose = scene.pose
    things = scene.things.copy()
    for i, (thing, (x, z)) in enumerate(zip(scene.things, traffic.things, strict=True)):
        if x or z:
            moved = _moved(thing, x, z)
            others = things[:i] + things[i + 1 :]
            if _is_free(scene, pose, thing, moved, others):
                things[i] = moved
    return Scene(scene.plan, pose, scene.segments, things)


def _moved(thing: Thing, x: float, z: float) -> Thing:
    x0, x1, z0, z1 = thing.footprint
    area = Footprint(x0 + x, x1 + x, z0 + z, z1 + z)
    return replace(thing, x=thing.x + x, z=thing.z + z, footprint=area)


def _is_free(scene: Scene, pose: Pose, thing: Thing, moved: Thing, others: list[Thing]) -> bool:
    if scene.ground(moved.x, moved.z) != scene.ground(thing.x, thing.z):
        return False
    if _before(pose).meets(moved.footprint):
        return False
    return not any(moved.footprint.meets(other.footprint) for other in others)


def _before(pose: Pose) -> Footprint:
    return Footprint(pose.x - 1.0, pose.x + 1.0, pose.z, pose.z + _ROOM)
