"""Persons, riders, trees and street furniture, as flat models that face the camera."""

import numpy as np

from pipa.streets.shapes import Model, Sketch
from pipa.streets.vehicles import bicycle, bicycle_behind

_ROUND = np.linspace(0, 2 * np.pi, 8, endpoint=False)


def person(stride: float, *, skirt: bool = False, bag: bool = False) -> Model:
    """Build a person 1.8 m tall; `stride` is the distance from the middle to a foot, in metres."""
    sketch = Sketch()
    for side, shade in ((-1, 0.85), (1, 1.0)):
        sketch.limb((0.1 * side, 0.92), (side * max(stride, 0.1), 0.02), 0.19, "legs", shade)
        foot = side * max(stride, 0.1)
        sketch.limb((foot - 0.06, 0.04), (foot + 0.14, 0.04), 0.1, "hair")
    if skirt:
        sketch.face([(-0.34, 0.5), (0.34, 0.5), (0.2, 1.05), (-0.2, 1.05)], "shirt", 0.9)
    if bag:
        sketch.face([(0.2, 0.55), (0.46, 0.55), (0.46, 0.86), (0.2, 0.86)], "bag")
    _torso(sketch, 0.0, "shirt", "skin")
    for side in (-1, 1):
        hand = (side * (0.3 + 0.3 * stride), 0.82)
        sketch.limb((0.25 * side, 1.42), hand, 0.12, "shirt", 0.86)
        sketch.disc(*hand, 0.06, "skin")
    sketch.disc(0.0, 1.74, 0.15, "hair")
    sketch.face(np.array([0.0, 1.67]) + 0.12 * _circle(), "skin")
    return sketch.model()


def rider(*, behind: bool) -> Model:
    """Build a person on a bicycle, seen from the side (riding towards +x) or from behind."""
    sketch = Sketch()
    (bicycle_behind if behind else bicycle)(sketch)
    if behind:
        for side in (-1, 1):
            sketch.limb((0.13 * side, 1.0), (0.2 * side, 0.4), 0.17, "rider_legs", 0.9)
            sketch.limb((0.26 * side, 1.5), (0.34 * side, 1.08), 0.13, "rider_shirt", 0.85)
        body = [(-0.22, 0.95), (0.22, 0.95), (0.3, 1.5), (0.18, 1.62), (-0.18, 1.62), (-0.3, 1.5)]
        sketch.face(body, "rider_shirt")
        _helmeted(sketch, 0.0, 1.8)
        return sketch.model()
    for knee, foot in (((0.2, 0.72), (0.0, 0.26)), ((0.26, 0.9), (0.12, 0.5))):
        sketch.limb((-0.2, 0.98), knee, 0.2, "rider_legs")
        sketch.limb(knee, foot, 0.16, "rider_legs", 0.85)
    sketch.face([(-0.34, 0.92), (0.02, 0.92), (0.28, 1.46), (0.0, 1.58)], "rider_shirt")
    sketch.limb((0.16, 1.45), (0.42, 1.08), 0.13, "rider_shirt", 0.85)
    _helmeted(sketch, 0.24, 1.7)
    return sketch.model()


def parked_bicycle() -> Model:
    """Build a bicycle without a rider."""
    sketch = Sketch()
    bicycle(sketch)
    return sketch.model()


def tree(seed: int, blobs: int) -> Model:
    """Build a tree about 6 m tall, with a crown of `blobs` patches of leaves."""
    rng = np.random.default_rng(seed)
    sketch = Sketch()
    sketch.face([(-0.2, 0), (0.2, 0), (0.14, 3.2), (-0.14, 3.2)], "trunk")
    sketch.limb((0.0, 2.4), (0.8, 3.4), 0.16, "trunk", 0.9)
    wide, tall = rng.uniform(1.3, 2.0), rng.uniform(1.4, 2.2)
    _crown(sketch, rng, blobs, (0.0, 2.6 + tall), (wide, tall))
    return sketch.model()


def bush(seed: int, blobs: int) -> Model:
    """Build a bush about 2 m tall, with leaves down to the ground."""
    rng = np.random.default_rng(seed)
    sketch = Sketch()
    sketch.face([(-1.1, 0), (1.1, 0), (1.2, 0.9), (-1.2, 0.9)], "leaves", 0.75)
    _crown(sketch, rng, blobs, (0.0, 1.0), (1.3, 0.9))
    return sketch.model()


def street_lamp(reach: float) -> Model:
    """Build a lamp post of 7 m; its arm reaches `reach` metres over the road."""
    sketch = Sketch()
    sketch.face([(-0.13, 0), (0.13, 0), (0.1, 7.0), (-0.1, 7.0)], "pole")
    sketch.limb((0.0, 6.9), (reach, 7.2), 0.14, "pole")
    sketch.limb((reach * 0.75, 7.18), (reach * 1.3, 7.2), 0.26, "lamp")
    return sketch.model()


def post(height: float, thick: float) -> Model:
    """Build a bare pole."""
    sketch = Sketch()
    half = thick / 2
    sketch.face([(-half, 0), (half, 0), (half, height), (-half, height)], "pole")
    return sketch.model()


def traffic_light(lit: int, reach: float) -> Model:
    """Build a traffic light; `lit` counts lamps from the top, `reach` is the length of an arm."""
    sketch = Sketch()
    sketch.face([(-0.1, 0), (0.1, 0), (0.1, 3.4), (-0.1, 3.4)], "pole")
    centres = [(0.0, 3.6)]
    if reach:
        sketch.face([(-0.1, 3), (0.1, 3), (0.1, 5.6), (-0.1, 5.6)], "pole")
        sketch.limb((0.0, 5.5), (reach, 5.5), 0.16, "pole")
        centres.append((reach, 5.0))
    for x, y in centres:
        w, h = 0.34, 0.82
        sketch.face([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)], "signal")
        for i, name in enumerate(("signal_red", "signal_yellow", "signal_green")):
            sketch.disc(x, y + 0.5 * (1.0 - i), 0.22, name if i == lit else "signal_off")
    return sketch.model()


def traffic_sign(kind: int) -> Model:
    """Build a sign on a pole, a little oversized: limit, stop, warning, order or place name."""
    sketch = Sketch()
    sketch.face([(-0.09, 0), (0.09, 0), (0.09, 2.8), (-0.09, 2.8)], "pole")
    y = 2.7
    if kind == 0:
        sketch.disc(0.0, y, 0.52, "sign_red")
        sketch.disc(0.0, y, 0.35, "sign_white")
        sketch.limb((-0.12, y), (0.12, y), 0.2, "sign_red", 0.25)
    elif kind == 1:
        sketch.disc(0.0, y, 0.52, "sign_red")
        sketch.limb((-0.34, y), (0.34, y), 0.2, "sign_white")
    elif kind == 2:
        for size, name in ((0.62, "sign_red"), (0.38, "sign_white")):
            corners = [(-size, y - 0.55 * size), (size, y - 0.55 * size), (0.0, y + 1.05 * size)]
            sketch.face(corners, name)
    elif kind == 3:
        sketch.disc(0.0, y, 0.52, "sign_white")
        sketch.disc(0.0, y, 0.45, "sign_blue")
        sketch.limb((0.0, y - 0.28), (0.0, y + 0.28), 0.16, "sign_white")
    else:
        name = "sign_blue" if kind == 4 else "sign_yellow"
        for grow, colour in ((0.06, "sign_white"), (0.0, name)):
            w, h = 0.62 + grow, 0.38 + grow
            sketch.face([(-w, y - h), (w, y - h), (w, y + h), (-w, y + h)], colour)
        sketch.limb((-0.38, y), (0.38, y), 0.16, "sign_white")
    return sketch.model()


def litter_bin() -> Model:
    """Build a litter bin; Cityscapes has no class for it, so it has no label."""
    sketch = Sketch()
    sketch.face([(-0.26, 0), (0.26, 0), (0.3, 0.9), (-0.3, 0.9)], "bin")
    sketch.face([(-0.32, 0.9), (0.32, 0.9), (0.24, 1.05), (-0.24, 1.05)], "bin", 0.8)
    return sketch.model()


def _circle() -> np.ndarray:
    return np.column_stack([np.cos(_ROUND), np.sin(_ROUND)])


def _torso(sketch: Sketch, x: float, shirt: str, skin: str) -> None:
    sketch.limb((x, 1.45), (x, 1.64), 0.12, skin, 0.9)
    outline = [(-0.19, 0.86), (0.19, 0.86), (0.27, 1.4), (0.14, 1.54), (-0.14, 1.54), (-0.27, 1.4)]
    sketch.face(np.array(outline) + np.array([x, 0.0]), shirt)


def _helmeted(sketch: Sketch, x: float, y: float) -> None:
    sketch.disc(x, y, 0.14, "rider_skin")
    sketch.face(np.array([x, y + 0.05]) + 0.17 * _circle()[:5], "helmet")


def _crown(
    sketch: Sketch,
    rng: np.random.Generator,
    blobs: int,
    centre: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Draw leaves: dark patches first, lighter ones over them."""
    sketch.face(np.array(centre) + np.array(size) * 0.85 * _circle(), "leaves", 0.78)
    for i in range(blobs):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.95)
        offset = np.array([np.cos(angle), np.sin(angle)]) * reach * np.array(size) * 0.75
        shade = 0.72 + 0.4 * i / blobs + 0.08 * float(offset[1] > 0)
        radius = rng.uniform(0.3, 0.55) * float(np.mean(size))
        sketch.face(np.array(centre) + offset + radius * _circle(), "leaves", shade)
