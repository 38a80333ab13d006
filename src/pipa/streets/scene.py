"""The parts of a street scene, in metres; the street's widths and what lines its sides.

Everything is drawn from the generator that is passed in. `placing` adds the things in the street,
`stage` turns a scene into faces.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

KERB = 0.22  # metres
_END = 150.0  # metres; the façades end here


class Footprint(NamedTuple):
    """An upright rectangle on the ground, in metres."""

    x0: float
    x1: float
    z0: float
    z1: float

    def meets(self, other: "Footprint") -> bool:
        """Whether two rectangles share any area."""
        return (
            self.x0 < other.x1 and other.x0 < self.x1 and self.z0 < other.z1 and other.z0 < self.z1
        )


@dataclass(frozen=True)
class Thing:
    """A thing in the street."""

    kind: str
    """One of the kinds of `catalogue.models`."""
    choice: int
    """Index of the model of that kind, modulo their number."""
    x: float
    z: float
    heading: float
    scale: float
    tint: int
    footprint: Footprint


class Segment(NamedTuple):
    """A piece of one side of the street."""

    kind: str
    """building, wall, fence, rail, hedge, gap or side_street."""
    side: int
    """-1 left, 1 right."""
    front: float
    """Distance of its front from the middle of the street."""
    z0: float
    z1: float
    height: float
    tint: int


@dataclass(frozen=True)
class Plan:
    """The street itself; distances are from its middle, in metres."""

    lane: float
    lanes: tuple[int, int]
    """Number of lanes on the left (oncoming) and on the right."""
    parking: tuple[float, float]
    walk: tuple[float, float]
    verge: tuple[float, float]
    """Grass between kerb and sidewalk."""
    garden: tuple[float, float]
    """Grass between sidewalk and façade."""
    crossing: float | None
    """Depth at which the zebra crossing starts."""
    dashed: bool
    tint: int

    def edge(self, side: int) -> float:
        """Return the half-width of the road on one side (-1 or 1)."""
        i = (side + 1) // 2
        return self.lanes[i] * self.lane + self.parking[i]

    def pavement(self, side: int) -> tuple[float, float]:
        """Return the inner and the outer edge of the sidewalk."""
        i = (side + 1) // 2
        inner = self.edge(side) + self.verge[i]
        return inner, inner + self.walk[i]

    def front(self, side: int) -> float:
        """Return the distance of the façades."""
        return self.pavement(side)[1] + self.garden[(side + 1) // 2]


@dataclass(frozen=True)
class Pose:
    """Position and direction of the camera, in units that a `Look` turns into a `Camera`."""

    x: float
    height: float
    view: float
    """Field of view in degrees."""
    horizon: float
    """Row of the horizon as a share of the height."""
    yaw: float
    roll: float
    """Standard normal; the look scales it to degrees."""
    bend: float
    z: float = 0.0
    """Metres along the street that the camera has moved since the first frame."""


@dataclass
class Scene:
    """A scene, without the look: both domains share it."""

    plan: Plan
    pose: Pose
    segments: list[Segment] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)

    def ground(self, x: float, z: float) -> tuple[str, float, float]:
        """Return the surface at a place, and its left and right end there."""
        side, plan = 1 if x > 0 else -1, self.plan
        edge, (inner, outer) = plan.edge(side), plan.pavement(side)
        if abs(x) > edge and any(
            part.kind == "side_street" and part.side == side and part.z0 <= z < part.z1
            for part in self.segments
        ):
            inner, outer, name = edge, 70.0, "road"
        else:
            name = "walk"
        bands = (
            ("road", -plan.edge(-side), edge),
            ("grass", edge + KERB, inner),
            (name, inner, outer),
            ("grass", outer, 100.0),
        )
        found, low, high = next(band for band in bands if abs(x) < band[2])
        return found, min(side * low, side * high), max(side * low, side * high)


def sample_plan(rng: np.random.Generator) -> Plan:
    """Draw the widths of a street."""

    def pair(low: float, high: float, probability: float) -> tuple[float, float]:
        first, second = (
            rng.uniform(low, high) if rng.random() < probability else 0.0 for _ in "ab"
        )
        return first, second

    return Plan(
        lane=rng.uniform(3.1, 3.6),
        lanes=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        parking=pair(2.2, 2.4, 0.35),
        walk=(rng.uniform(2.2, 4.5), rng.uniform(2.2, 4.5)),
        verge=pair(0.8, 2.2, 0.4),
        garden=pair(1.0, 4.0, 0.65),
        crossing=math.exp(rng.uniform(math.log(9), math.log(40))) if rng.random() < 0.4 else None,
        dashed=rng.random() < 0.75,
        tint=int(rng.integers(1 << 20)),
    )


_SEGMENTS = ("building", "wall", "fence", "rail", "hedge", "gap", "side_street")
_SHARES = (0.34, 0.20, 0.18, 0.07, 0.11, 0.06, 0.04)
_LENGTHS = ((8, 20), (8, 18), (7, 18), (7, 15), (6, 14), (5, 12), (6, 8))
_HEIGHTS = ((6, 17), (1.9, 3.8), (1.5, 2.3), (1.2, 1.6), (1.1, 2.4), (0, 1), (0, 1))


def sample_side(rng: np.random.Generator, plan: Plan, side: int) -> list[Segment]:
    """Draw one side of the street, near to far, without holes."""
    segments: list[Segment] = []
    z, cumulative = 2.5, np.cumsum(_SHARES)
    while z < _END:
        i = min(int(np.searchsorted(cumulative, rng.random())), len(_SEGMENTS) - 1)
        length, height = rng.uniform(*_LENGTHS[i]), rng.uniform(*_HEIGHTS[i])
        setback = rng.uniform(0, 1.5) if rng.random() < 0.3 else 0.0
        tint = int(rng.integers(1 << 20))
        front = plan.front(side) + setback
        segments.append(Segment(_SEGMENTS[i], side, front, z, z + length, height, tint))
        z += length
    return segments
