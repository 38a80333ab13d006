"""Models of cars, trucks, buses and bicycles. Those with heading 0 drive away from the camera."""

import numpy as np

from pipa.streets.shapes import Corners, Model, Sketch, patches, prism

_RIM = np.linspace(0, 2 * np.pi, 11)


def car(length: float, height: float, nose: float, tail: float) -> Model:
    """Build a car 1.8 m wide.

    Args:
        length: Distance from bumper to bumper, in metres.
        height: Height of the roof, in metres.
        nose: Length of the bonnet, in metres.
        tail: Length of the boot, in metres.
    """
    half, z0, z1, belt = 0.9, -length / 2, length / 2, 0.62 * height
    sketch = Sketch(solid=True)
    body = prism((-half, half, z0, z1), (-half, half, z0 + 0.1, z1 - 0.1), (0.28, belt))
    for name, shade in (("front", 0.95), ("rear", 0.95), ("left", 0.8), ("right", 0.8)):
        sketch.face(body[name], "paint", shade)
        sketch.quads(patches(body[name], [(0.0, 1.0)], [(0.0, 0.16)]), "trim")
    sketch.face(body["top"], "paint", 1.1)
    lamps, low = [(0.03, 0.24), (0.76, 0.97)], [(0.5, 0.84)]
    sketch.quads(patches(body["rear"], lamps, low), "tail")
    sketch.quads(patches(body["front"], lamps, low), "head")
    sketch.quads(patches(body["rear"], [(0.36, 0.64)], [(0.3, 0.58)]), "plate")
    sketch.quads(patches(body["front"], [(0.3, 0.7)], [(0.26, 0.62)]), "trim")
    for side in (-half, half):
        for z in (z0 + 0.8, z1 - 0.85):
            _wheel(sketch, side, z, 0.36, "wheel", "hub")
    _tyres(sketch, half, z0, z1, "wheel")
    cabin = prism(
        (-half + 0.05, half - 0.05, z0 + tail, z1 - nose),
        (-half + 0.22, half - 0.22, z0 + tail + 0.3, z1 - nose - 0.55),
        (belt, height),
    )
    for name, shade in (("front", 0.95), ("rear", 0.95), ("left", 0.8), ("right", 0.8)):
        sketch.face(cabin[name], "paint", shade)
    for name in ("front", "rear"):
        sketch.quads(patches(cabin[name], [(0.06, 0.94)], [(0.1, 0.86)]), "glass")
    for name in ("left", "right"):
        sketch.quads(patches(cabin[name], [(0.06, 0.48), (0.53, 0.94)], [(0.1, 0.85)]), "glass")
    sketch.face(cabin["top"], "paint", 1.15)
    return sketch.model()


def truck(length: float, height: float) -> Model:
    """Build a lorry 2.5 m wide: a closed box behind a cab."""
    half, z0, z1 = 1.25, -length / 2, length / 2
    sketch = Sketch(solid=True)
    cab = prism(
        (-half + 0.05, half - 0.05, z1 - 2.0, z1), (-1.15, 1.15, z1 - 2.0, z1 - 0.3), (0.5, 2.7)
    )
    _box(sketch, cab, "cab")
    sketch.quads(patches(cab["front"], [(0.06, 0.94)], [(0.52, 0.92)]), "truck_glass")
    sketch.quads(patches(cab["front"], [(0.04, 0.2), (0.8, 0.96)], [(0.08, 0.22)]), "truck_head")
    sketch.quads(patches(cab["front"], [(0.26, 0.74)], [(0.1, 0.4)]), "truck_dark")
    for name in ("left", "right"):
        sketch.quads(patches(cab[name], [(0.25, 0.8)], [(0.55, 0.9)]), "truck_glass")
    frame = prism((-half + 0.1, half - 0.1, z0, z1), (-1.15, 1.15, z0, z1), (0.45, 0.95))
    for name in ("rear", "left", "right", "front"):
        sketch.face(frame[name], "truck_dark")
    rear = [(0.02, 0.16), (0.84, 0.98)]
    sketch.quads(patches(frame["rear"], rear, [(0.35, 0.8)]), "truck_tail")
    back = z1 - 2.15
    box = prism((-half, half, z0, back), (-half, half, z0, back), (0.9, height))
    _box(sketch, box, "cargo")
    sketch.quads(patches(box["rear"], [(0.485, 0.515)], [(0.03, 0.97)]), "truck_dark")
    sketch.quads(patches(box["rear"], [(0.04, 0.07), (0.93, 0.96)], [(0.1, 0.9)]), "cargo", 0.7)
    for name in ("left", "right"):
        sketch.quads(patches(box[name], [(0.0, 1.0)], [(0.4, 0.52)]), "cab")
    for side in (-half, half):
        for z in (z0 + 1.0, z0 + 2.1, z1 - 1.2):
            _wheel(sketch, side, z, 0.5, "truck_dark", "truck_dark")
    _tyres(sketch, half, z0, z1, "truck_dark", radius=0.45)
    return sketch.model()


def bus(length: float, height: float) -> Model:
    """Build a city bus 2.5 m wide, with windows on all sides."""
    half, z0, z1 = 1.25, -length / 2, length / 2
    sketch = Sketch(solid=True)
    body = prism((-half, half, z0, z1), (-half, half, z0, z1), (0.35, height))
    _box(sketch, body, "bus")
    for name in ("rear", "front", "left", "right"):
        sketch.quads(patches(body[name], [(0.0, 1.0)], [(0.0, 0.1)]), "bus_dark")
    sketch.quads(patches(body["rear"], [(0.08, 0.92)], [(0.52, 0.82)]), "bus_glass")
    sketch.quads(patches(body["front"], [(0.05, 0.95)], [(0.38, 0.82)]), "bus_glass")
    for name in ("rear", "front"):
        sketch.quads(patches(body[name], [(0.15, 0.85)], [(0.86, 0.96)]), "bus_board")
    lamps = [(0.03, 0.15), (0.85, 0.97)]
    sketch.quads(patches(body["rear"], lamps, [(0.16, 0.34)]), "bus_tail")
    sketch.quads(patches(body["front"], lamps, [(0.16, 0.26)]), "bus_board")
    count = int(length / 1.6)
    spans = [((i + 0.06) / count, (i + 0.94) / count) for i in range(count)]
    for name in ("left", "right"):
        sketch.quads(patches(body[name], spans, [(0.46, 0.82)]), "bus_glass")
    for side in (-half, half):
        for z in (z0 + 2.4, z1 - 2.4):
            _wheel(sketch, side, z, 0.5, "bus_dark", "bus_dark")
    _tyres(sketch, half, z0, z1, "bus_dark", radius=0.4)
    return sketch.model()


def bicycle(sketch: Sketch) -> None:
    """Draw a bicycle in the plane z = 0, riding towards +x; a little oversized."""
    for x in (-0.56, 0.56):
        sketch.quads(_ring(x, 0.37, 0.37, 0.24), "tyre")
    hub, seat, crank, bar = (-0.56, 0.37), (-0.2, 0.9), (-0.05, 0.36), (0.42, 0.92)
    for start, end in ((hub, seat), (hub, crank), (crank, seat), (seat, bar), (crank, bar)):
        sketch.limb(start, end, 0.11, "frame")
    sketch.limb((0.56, 0.37), (0.4, 1.05), 0.09, "frame")
    sketch.limb((0.3, 1.06), (0.5, 1.06), 0.1, "tyre")
    sketch.limb((-0.34, 0.95), (-0.08, 0.95), 0.1, "tyre")


def bicycle_behind(sketch: Sketch) -> None:
    """Draw a bicycle seen from behind or ahead, in the plane z = 0."""
    sketch.face([(-0.07, 0), (0.07, 0), (0.07, 0.74), (-0.07, 0.74)], "tyre")
    sketch.face([(-0.05, 0.7), (0.05, 0.7), (0.05, 0.95), (-0.05, 0.95)], "frame")
    sketch.limb((-0.34, 1.04), (0.34, 1.04), 0.09, "tyre")


def _box(sketch: Sketch, faces: dict[str, Corners], name: str) -> None:
    for side, shade in (("front", 0.95), ("rear", 0.95), ("left", 0.8), ("right", 0.8)):
        sketch.face(faces[side], name, shade)
    sketch.face(faces["top"], name, 1.12)


def _wheel(sketch: Sketch, x: float, z: float, radius: float, tyre: str, hub: str) -> None:
    """Draw a disc in the plane of the side at `x`, visible from outside."""
    turn = _RIM[:-1] * np.sign(x)
    for size, name in ((radius, tyre), (radius * 0.55, hub)):
        y, along = radius + size * np.sin(turn), z + size * np.cos(turn)
        sketch.face(np.column_stack([np.full(10, x), y, along]), name)


def _tyres(
    sketch: Sketch, half: float, z0: float, z1: float, name: str, radius: float = 0.3
) -> None:
    """Draw the parts of the wheels that are visible below the bumpers, at both ends."""
    for x in (-half + 0.05, half - 0.4):
        low = prism((x, x + 0.35, z0, z1), (x, x + 0.35, z0, z1), (0.0, radius))
        for side in ("rear", "front"):
            sketch.face(low[side], name)


def _ring(x: float, y: float, outer: float, inner: float) -> np.ndarray:
    """Return ten quadrilaterals that make a wheel in the plane z = 0."""
    wheel = np.column_stack([np.cos(_RIM), np.sin(_RIM), np.zeros(11)])
    centre = np.array([x, y, 0.0])
    a, b = centre + outer * wheel, centre + inner * wheel
    return np.stack([a[:-1], a[1:], b[1:], b[:-1]], axis=1)
