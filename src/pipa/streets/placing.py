"""Placing of things in a street: one distribution of scenes, which both domains share.

Places are as in real streets (vehicles in lanes, persons mostly on sidewalks, lights at crossings),
depth is log-uniform so that sizes vary, and no two things overlap.
"""

import math

import numpy as np

from pipa.streets.scene import Footprint, Pose, Scene, Thing, sample_plan, sample_side

_NEAREST, _FARTHEST = 6.0, 75.0  # metres in which things are placed


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a street. Trucks and buses come before cars, which would leave no room for them."""
    plan = sample_plan(rng)
    lane = int(rng.integers(plan.lanes[1]))
    pose = Pose(
        x=(lane + 0.5) * plan.lane + rng.uniform(-0.5, 0.5),
        height=rng.uniform(1.35, 1.75),
        view=rng.uniform(50, 62),
        horizon=rng.uniform(0.38, 0.5),
        yaw=math.radians(rng.normal(0, 2.2)),
        roll=rng.standard_normal(),
        bend=rng.normal(0, 0.0007),
    )
    scene = Scene(plan, pose)
    for side in (-1, 1):
        scene.segments += sample_side(rng, plan, side)
    placer = _Placer(rng, scene)
    placer.vehicles()
    placer.people()
    placer.furniture()
    return scene


# half width and half length of each kind's footprint
_SIZES = {
    "car": (0.95, 2.3), "truck": (1.3, 4.0), "bus": (1.3, 5.5), "person": (0.35, 0.3),
    "rider": (0.85, 0.5), "rider_behind": (0.4, 0.9), "bicycle": (0.85, 0.3), "tree": (0.4, 0.4),
    "bush": (1.0, 0.5), "lamp": (0.25, 0.25), "light": (0.3, 0.3), "sign": (0.3, 0.3),
    "post": (0.2, 0.2), "bin": (0.35, 0.35),
}  # fmt: skip


class _Placer:
    """Puts things into a scene; a thing that would overlap another is left out."""

    def __init__(self, rng: np.random.Generator, scene: Scene) -> None:
        self.rng, self.scene, self.plan = rng, scene, scene.plan

    def put(self, kind: str, x: float, z: float, heading: float = 0.0, scale: float = 1.0) -> bool:
        """Place a thing if there is room; return whether it was placed."""
        half, length = (size * scale for size in _SIZES[kind])
        cos, sin = abs(math.cos(heading)), abs(math.sin(heading))
        wide, deep = half * cos + length * sin, half * sin + length * cos
        footprint = Footprint(x - wide, x + wide, z - deep, z + deep)
        choice, tint = int(self.rng.integers(1 << 16)), int(self.rng.integers(1 << 20))
        if footprint.z0 < 3.5 or any(footprint.meets(t.footprint) for t in self.scene.things):
            return False
        self.scene.things.append(Thing(kind, choice, x, z, heading, scale, tint, footprint))
        return True

    def depth(self, near: float = _NEAREST, far: float = _FARTHEST) -> float:
        """Draw a log-uniform depth, in metres."""
        return math.exp(self.rng.uniform(math.log(near), math.log(far)))

    def vehicles(self) -> None:
        """Place large vehicles first, then cars in lanes, crossing cars and parked cars."""
        for kind, probability, near in (("truck", 0.5, 12.0), ("bus", 0.6, 13.0)):
            for _ in range(2):
                if self.rng.random() < probability:
                    self._drive(kind, self.depth(near, 60.0))
        if self.plan.crossing and self.rng.random() < 0.35:
            x, heading = (
                self.rng.uniform(2.5 - self.plan.edge(-1), self.plan.edge(1) - 2.5),
                math.copysign(math.pi / 2, self.rng.normal()),
            )
            self.put("car", x, self.plan.crossing + 5.5, heading)
        for _ in range(int(self.rng.integers(1, 6))):
            self._drive("car", self.depth(7.5))
        for side in (-1, 1):
            if self.plan.parking[(side + 1) // 2]:
                self._park(side)

    def _drive(self, kind: str, z: float) -> None:
        side = 1 if self.rng.random() < 0.5 else -1
        lane = int(self.rng.integers(self.plan.lanes[(side + 1) // 2]))
        x = side * (lane + 0.5) * self.plan.lane + self.rng.normal(0, 0.2)
        heading = (0.0 if side > 0 else math.pi) + self.rng.normal(0, 0.03)
        self.put(kind, x, z, heading)

    def _park(self, side: int) -> None:
        z = self.rng.uniform(5, 14)
        while z < 60:
            if self.rng.random() < 0.5:
                heading = (0.0 if side > 0 else math.pi) + self.rng.normal(0, 0.02)
                self.put("car", side * (self.plan.edge(side) - 1.15), z, heading)
            z += self.rng.uniform(5.3, 7.5)

    def people(self) -> None:
        """Place groups on sidewalks and the crossing, riders on the road, and parked bicycles."""
        for _ in range(int(self.rng.integers(1, 5))):
            self._ride()
        for _ in range(int(self.rng.integers(3, 8))):
            self._group()
        if self.plan.crossing:
            for _ in range(int(self.rng.integers(0, 5))):
                x = self.rng.uniform(-self.plan.edge(-1), self.plan.edge(1))
                z = self.plan.crossing + self.rng.uniform(0.3, 2.8)
                self.put("person", x, z, scale=self._stature())
        for _ in range(int(self.rng.integers(0, 5))):
            side, inner, outer = self._pavement()
            x = side * (inner + 0.4 if self.rng.random() < 0.5 else outer - 0.3)
            heading = self.rng.uniform(-0.7, 0.7)
            self.put("bicycle", x, self.depth(6.0, 40.0), heading, 1.25)

    def _stature(self) -> float:
        return self.rng.uniform(0.95, 1.15) if self.rng.random() < 0.85 else 0.75

    def _pavement(self) -> tuple[int, float, float]:
        side = 1 if self.rng.random() < 0.5 else -1
        return side, *self.plan.pavement(side)

    def _group(self) -> None:
        side, inner, outer = self._pavement()
        x, z = self.rng.uniform(inner + 0.3, outer - 0.2), self.depth()
        for _ in range(int(self.rng.integers(1, 4))):
            if inner + 0.2 < x < outer - 0.1:
                self.put("person", side * x, z, scale=self._stature())
            x += self.rng.uniform(0.7, 1.0) * (1 if self.rng.random() < 0.5 else -1)
            z += self.rng.uniform(-0.9, 0.9)

    def _ride(self) -> None:
        side = 1 if self.rng.random() < 0.65 else -1
        x = side * (self.plan.edge(side) - self.plan.parking[(side + 1) // 2])
        x -= side * self.rng.uniform(0.5, 1.6)
        if self.rng.random() < 0.3:
            self.put("rider_behind", x, self.depth(7.0, 45.0), scale=1.2)
        else:
            heading = self.rng.uniform(-0.9, 0.9) + (math.pi if self.rng.random() < 0.5 else 0.0)
            self.put("rider", x, self.depth(7.0, 45.0), heading, 1.2)

    def furniture(self) -> None:
        """Place lights, signs and lamps at the kerb, trees in rows, bushes, posts and bins."""
        for side in (-1, 1):
            self._signals(side, side * (self.plan.edge(side) + 0.45))
            self._rows(side, side * (self.plan.edge(side) + 0.45))
            self._clutter(side)

    def _signals(self, side: int, kerb: float) -> None:
        heading = math.pi if side > 0 else 0.0  # arms reach over the road
        if self.plan.crossing:
            self.put("light", kerb, self.plan.crossing - 0.8, heading)
        for _ in range(int(self.rng.integers(0, 3))):
            self.put("light", kerb, self.depth(9.0, 45.0), heading)
        for _ in range(int(self.rng.integers(1, 4))):
            self.put("sign", kerb, self.depth(9.0, 45.0), scale=self.rng.uniform(1.0, 1.25))

    def _rows(self, side: int, kerb: float) -> None:
        if self.rng.random() < 0.75:
            self._row("lamp", kerb, (16.0, 30.0))
        if self.rng.random() < 0.55:
            self._row("tree", kerb + side * 0.3, (7.0, 14.0))

    def _clutter(self, side: int) -> None:
        kerb, outer = self.plan.edge(side) + 0.45, self.plan.pavement(side)[1]
        for _ in range(int(self.rng.integers(0, 3))):
            self.put("post", side * kerb, self.depth(6.0, 50.0))
            self.put("bin", side * (outer - 0.5), self.depth(7.0, 40.0))
        if self.plan.garden[(side + 1) // 2] > 1.8:
            for _ in range(int(self.rng.integers(0, 4))):
                x, scale = side * (outer + 1.1), self.rng.uniform(0.6, 1)
                self.put("bush", x, self.depth(7.0, 60.0), scale=scale)

    def _row(self, kind: str, x: float, spacing: tuple[float, float]) -> None:
        z, step = self.rng.uniform(7, 20), self.rng.uniform(*spacing)
        heading = math.pi if x > 0 and kind == "lamp" else 0.0
        while z < 110:
            self.put(kind, x, z, heading, self.rng.uniform(0.9, 1.2))
            z += step * self.rng.uniform(0.9, 1.1)
