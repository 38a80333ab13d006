"""Building of a scene from faces: the ground, both sides of the street, and its things."""

from functools import cache

import numpy as np
from jaxtyping import Float

from pipa.streets.catalogue import models
from pipa.streets.scene import KERB, Plan, Scene, Segment, Thing
from pipa.streets.shapes import Model, Sketch, World, patches

_BACKDROP, _GROUND = 1e6, 1e4  # painted before everything else
_BREAKS = np.concatenate([[1.0], np.geomspace(4, 160, 13), [400.0]])
_FINE = 45.0  # metres; beyond it, small details are left out


_ON_GROUND = np.array([(0.0, 0.0, 20.0), (5.0, 0.0, 20.0), (0.0, 0.0, 30.0)])


def build(scene: Scene, rng: np.random.Generator) -> World:
    """Build the faces of a street without the things in it.

    Args:
        scene: The scene.
        rng: Draws details that do not change the layout: the skyline and the windows.
    """
    world = World()
    _backdrop(world, rng, scene.plan.tint)
    _ground(world, scene.plan)
    for segment in scene.segments:
        _segment(world, segment, scene.plan, rng)
    return world


def with_things(street: World, scene: Scene) -> World:
    """Return a street with the things of a scene in it; in the same order, the same faces."""
    world = street.copy()
    for thing in scene.things:
        _thing(world, thing, scene)
    return world


def _thing(world: World, thing: Thing, scene: Scene) -> None:
    area, near = thing.footprint, thing.footprint.z0
    ground, left, right = scene.ground(thing.x, thing.z)
    left, right = max(left, area.x0 - 0.1), min(right, area.x1 + 0.1)
    world.place(
        _shadow(ground),
        near + 1e-3,
        at=((left + right) / 2, (area.z0 + area.z1) / 2),
        scale=((right - left) / 2, 1.0, (area.z1 - area.z0) / 2 + 0.1),
        tint=scene.plan.tint,
        anchors=_ON_GROUND,  # where a shadow falls, the ground is seen; that does not move
    )
    choices = models(thing.kind)
    world.place(
        choices[thing.choice % len(choices)],
        near,
        at=(thing.x, thing.z),
        heading=thing.heading,
        scale=thing.scale,
        tint=thing.tint,
    )


@cache
def _shadow(ground: str) -> Model:
    """Build a dark rectangle with cut corners on the ground, two metres each way."""
    sketch = Sketch()
    ring = np.array([(-1, -0.6), (-0.6, -1), (0.6, -1), (1, -0.6)])
    ring = np.concatenate([ring, -ring])
    sketch.face(np.column_stack([ring[:, 0], np.zeros(8), ring[:, 1]]), ground, 0.58)
    return sketch.model()


@cache
def _open_land() -> Model:
    """Build the sky, the background of everything, and grass up to the horizon."""
    sketch = Sketch()
    sketch.face([(-1, 0, 900), (1, 0, 900), (0, 1, 900)], "sky")
    z = np.concatenate([_BREAKS, [1200.0]])
    wide = 20 + 2.5 * z
    land = np.zeros((len(z) - 1, 4, 3))
    land[:, :, 0] = np.stack([-wide[:-1], wide[:-1], wide[1:], -wide[1:]], axis=1)
    land[:, :2, 2], land[:, 2:, 2] = z[:-1, None], z[1:, None]
    sketch.quads(land, "grass")
    return sketch.model()


def _backdrop(world: World, rng: np.random.Generator, tint: int) -> None:
    world.place(_open_land(), _BACKDROP, tint=tint)
    for row, distance in enumerate((330.0, 250.0)):
        x = -280.0
        while x < 280:
            width = rng.uniform(16, 50)
            kind, top = ("far_trees", (9, 16)) if rng.random() < 0.45 else ("far_wall", (10, 34))
            world.place(
                _distant(kind),
                _BACKDROP - 1 - row,
                at=(x, distance),
                scale=(width, rng.uniform(*top), 1.0),
                tint=int(rng.integers(1 << 20)),
            )
            x += width * rng.uniform(0.7, 1.5)


@cache
def _distant(name: str) -> Model:
    """Build a house or a clump of trees for the horizon, 1 m wide and tall."""
    sketch = Sketch()
    if name == "far_wall":
        sketch.face([(0, 0), (1, 0), (1, 1), (0, 1)], name, 0.95)
    else:
        for i, tall in enumerate((0.8, 1.0, 0.9)):
            lump = np.array([(0, 0), (0.38, 0), (0.42, 0.6), (0.2, 1), (-0.04, 0.7)])
            sketch.face(lump * (1, tall) + (0.3 * i, 0), name, 0.86 + 0.07 * i)
    return sketch.model()


def _ground(world: World, plan: Plan) -> None:
    sketch = Sketch()
    left, right = plan.edge(-1), plan.edge(1)
    for side in (-1, 1):
        inner, outer = plan.pavement(side)
        sketch.quads(_strip(side * inner, side * outer), "walk")
        if plan.verge[(side + 1) // 2]:
            sketch.quads(_strip(side * plan.edge(side), side * inner), "grass", 0.96)
    sketch.quads(_strip(-left, right), "road")
    for side in (-1, 1):
        edge = plan.edge(side)
        sketch.quads(_strip(side * edge, side * (edge + KERB)), "kerb")
        if plan.parking[(side + 1) // 2]:
            line = edge - plan.parking[(side + 1) // 2]
            sketch.quads(_strip(side * (line - 0.07), side * (line + 0.07)), "mark", 0.92)
    for lane in range(1 - plan.lanes[0], plan.lanes[1]):
        x = lane * plan.lane
        dashes = np.arange(2.0, 90.0, 8.0) if plan.dashed or lane else None
        sketch.quads(_strip(x - 0.09, x + 0.09, dashes), "mark")
    if plan.crossing:
        _zebra(sketch, plan, plan.crossing)
    world.place(sketch.model(), _GROUND, tint=plan.tint)


def _zebra(sketch: Sketch, plan: Plan, z: float) -> None:
    for x in np.arange(-plan.edge(-1) + 0.4, plan.edge(1) - 0.5, 1.1):
        sketch.face([(x, 0, z), (x + 0.6, 0, z), (x + 0.6, 0, z + 3), (x, 0, z + 3)], "mark")
    stop = z - 1.6
    line = [(0.2, 0, stop), (plan.edge(1), 0, stop), (plan.edge(1), 0, stop + 0.5)]
    sketch.face([*line, (0.2, 0, stop + 0.5)], "mark")


def _strip(
    x0: float, x1: float, dashes: Float[np.ndarray, " d"] | None = None
) -> Float[np.ndarray, "q 4 3"]:
    """Build a band of ground along the street, in pieces that can follow a bend; or 3 m dashes."""
    z0, z1 = (_BREAKS[:-1], _BREAKS[1:]) if dashes is None else (dashes, dashes + 3)
    quads = np.zeros((len(z0), 4, 3))
    quads[:, :, 0] = (x0, x1, x1, x0)
    quads[:, :2, 2], quads[:, 2:, 2] = z0[:, None], z1[:, None]
    return quads


def _segment(world: World, part: Segment, plan: Plan, rng: np.random.Generator) -> None:
    sketch = Sketch()
    if part.kind == "building":
        _building(sketch, part, rng)
    elif part.kind == "side_street":
        edge, far = part.side * plan.edge(part.side), part.side * 70
        span = [(edge, part.z0), (far, part.z0), (far, part.z1), (edge, part.z1)]
        sketch.face([(x, 0.0, z) for x, z in span], "road")
        world.place(sketch.model(), _GROUND - 1, tint=plan.tint)
        return
    else:
        _behind(world, part, rng)
        if part.kind == "gap":
            return
        {"wall": _wall, "fence": _fence, "rail": _rail, "hedge": _hedge}[part.kind](sketch, part)
    world.place(sketch.model(), part.z1, tint=part.tint)


def _behind(world: World, part: Segment, rng: np.random.Generator) -> None:
    """Place trees, or a house, behind a low segment."""
    key = part.z1 + 0.01
    if rng.random() < 0.3 and part.z0 > 8:
        house = Sketch()
        back = part._replace(front=part.front + rng.uniform(5, 9), height=rng.uniform(5, 9))
        _building(house, back, rng)
        world.place(house.model(), key, tint=int(rng.integers(1 << 20)))
    elif rng.random() < 0.6:
        for z in np.arange(part.z1 - 1.5, max(part.z0, 5.0), -rng.uniform(4, 7)):
            kind = models("tree")[int(rng.integers(8))]
            x = part.side * (part.front + rng.uniform(2, 5))
            tint = int(rng.integers(1 << 20))
            world.place(kind, key, at=(x, float(z)), scale=rng.uniform(0.8, 1.3), tint=tint)


def _face(part: Segment, height: float, low: float = 0.0) -> Float[np.ndarray, "4 3"]:
    """Return the front of a segment; corners run along the street, bottom first."""
    x = part.side * part.front
    return np.array(
        [(x, low, part.z0), (x, low, part.z1), (x, height, part.z1), (x, height, part.z0)]
    )


def _end(part: Segment, height: float, depth: float) -> Float[np.ndarray, "4 3"]:
    """Return the end of a segment that faces the camera."""
    x, far = part.side * part.front, part.side * (part.front + depth)
    corners = [(x, 0, part.z0), (far, 0, part.z0), (far, height, part.z0), (x, height, part.z0)]
    return np.array(corners, dtype=np.float64)


def _building(sketch: Sketch, part: Segment, rng: np.random.Generator) -> None:
    end, front = _end(part, part.height, 11.0), _face(part, part.height)
    wall = "wall_left" if part.side < 0 else "wall_right"
    if part.height < 11 and part.tint % 3:
        ridge = part.height + 2.4
        middle = end[[3, 2]].mean(axis=0) + np.array([0, 2.4, 0])
        sketch.face(np.stack([end[3], end[2], middle]), "wall_end", 0.86)
        slope = [front[3], front[2], (middle[0], ridge, part.z1), middle]
        sketch.face(np.array(slope), "roof")
    sketch.face(end, "wall_end", 0.86)
    sketch.face(front, wall)
    if part.z0 > 2 * _FINE:
        return
    floors, bays = max(int(part.height / 3.2), 1), max(int((part.z1 - part.z0) / 2.6), 2)
    if part.z0 > _FINE:
        bays = max(bays // 2, 2)
    shop = part.tint % 4 == 0
    across = [((i + 0.24) / bays, (i + 0.76) / bays) for i in range(bays)]
    up = [((i + 0.3) / floors, (i + 0.8) / floors) for i in range(int(shop), floors)]
    for face, kept in ((front, 0.92), (end, 0.5 if part.tint % 2 else 0.0)):
        spans = across if face is front else [(0.15, 0.28), (0.45, 0.58), (0.74, 0.87)]
        windows = patches(face, spans, up) if up else np.zeros((0, 4, 3))
        windows = windows[rng.random(len(windows)) < kept]
        sketch.quads(windows, "window", 1.0 if face is front else 0.9)
    if shop:
        sketch.quads(patches(front, [(0.03, 0.97)], [(0.1 / floors, 0.7 / floors)]), "window", 0.8)
        sketch.quads(patches(front, [(0.0, 1.0)], [(0.74 / floors, 0.95 / floors)]), "shop")
    place = (part.tint // 7 % bays + 0.08) / bays
    sketch.quads(patches(front, [(place, place + 0.45 / bays)], [(0.0, 0.72 / floors)]), "door")


def _wall(sketch: Sketch, part: Segment) -> None:
    sketch.face(_end(part, part.height, 0.4), "coping", 0.8)
    sketch.face(_face(part, part.height), "stone_left" if part.side < 0 else "stone_right")
    sketch.face(_face(part, part.height + 0.14, part.height - 0.06), "coping")


def _fence(sketch: Sketch, part: Segment) -> None:
    """Draw planks without gaps, every other one darker."""
    step = 0.4 if part.z0 < 25 else 1.2
    count = max(int((part.z1 - part.z0) / step), 2)
    planks = patches(
        _face(part, part.height), [(i / count, (i + 1) / count) for i in range(count)], [(0.0, 1.0)]
    )
    sketch.quads(planks[::2], "plank")
    sketch.quads(planks[1::2], "plank", 0.78)
    sketch.face(_end(part, part.height, 0.2), "plank", 0.7)


def _rail(sketch: Sketch, part: Segment) -> None:
    """Draw bars with gaps between them."""
    step = 0.4 if part.z0 < 25 else 0.8
    count = max(int((part.z1 - part.z0) / step), 2)
    bars = [(i / count, (i + 0.4) / count) for i in range(count)]
    face = _face(part, part.height)
    sketch.quads(patches(face, bars, [(0.0, 1.0)]), "rail")
    sketch.quads(patches(face, [(0.0, 1.0)], [(0.08, 0.2), (0.86, 1.0)]), "rail", 0.9)


def _hedge(sketch: Sketch, part: Segment) -> None:
    sketch.face(_end(part, part.height, 1.4), "leaves", 0.75)
    sketch.face(_face(part, part.height), "leaves", 0.9)
    sketch.face(_face(part, part.height + 0.15, part.height - 0.25), "leaves", 1.1)
