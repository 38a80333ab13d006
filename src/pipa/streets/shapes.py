"""Faces in metres: models of flat convex polygons, placed in a world and painted into a map.

X points right, Y up, Z along the street. Faces are painted far to near: a model with a larger key
comes earlier. The map holds, for each pixel, the number of the face seen there; colours and labels
are one look-up away. Nothing here depends on classes or domains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt16

from pipa.streets.camera import Camera, Points
from pipa.streets.surfaces import surface

Corners = Float[np.ndarray, "4 3"]

_SUBPIXEL = 3  # fractional bits of the corners of OpenCV's polygons


class Model(NamedTuple):
    """Faces of one thing in its own coordinates, in metres; origin on the ground below it."""

    points: Points
    counts: Int[np.ndarray, " f"]
    surfaces: Int[np.ndarray, " f"]
    shades: Float[np.ndarray, " f"]
    solid: bool
    """Whether faces are visible from outside only (wound anticlockwise)."""


class Sketch:
    """Collects faces for a model; later faces are painted over earlier ones."""

    def __init__(self, *, solid: bool = False) -> None:
        self._solid = solid
        self._points: list[Points] = []
        self._counts: list[int] = []
        self._surfaces: list[int] = []
        self._shades: list[float] = []

    def face(self, points: object, name: str, shade: float = 1.0) -> None:
        """Add a convex polygon (n, 3), or (n, 2) in the plane z = 0."""
        array = np.asarray(points, dtype=np.float64)
        if array.shape[1] == 2:
            array = np.column_stack([array, np.zeros(len(array))])
        self._points.append(array)
        self._counts.append(len(array))
        self._surfaces.append(surface(name))
        self._shades.append(shade)

    def quads(self, corners: Float[np.ndarray, "q 4 3"], name: str, shade: float = 1.0) -> None:
        """Add many quadrilaterals of one surface."""
        self._points.append(corners.reshape(-1, 3))
        self._counts += [4] * len(corners)
        self._surfaces += [surface(name)] * len(corners)
        self._shades += [shade] * len(corners)

    def disc(self, x: float, y: float, radius: float, name: str, shade: float = 1.0) -> None:
        """Add a circle in the plane z = 0."""
        self.face(np.array([x, y]) + radius * _CIRCLE, name, shade)

    def limb(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        thick: float,
        name: str,
        shade: float = 1.0,
    ) -> None:
        """Add a straight bar in the plane z = 0, `thick` metres wide."""
        a, b = np.array(start), np.array(end)
        along = (b - a) / max(float(np.hypot(*(b - a))), 1e-6)
        side = np.array([-along[1], along[0]]) * thick / 2
        self.face(np.stack([a - side, b - side, b + side, a + side]), name, shade)

    def model(self) -> Model:
        """Return the faces added so far as arrays."""
        return Model(
            np.concatenate(self._points),
            np.array(self._counts),
            np.array(self._surfaces),
            np.array(self._shades),
            self._solid,
        )


_ANGLES = np.linspace(0, 2 * np.pi, 10, endpoint=False)
_CIRCLE = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])


def prism(
    bottom: tuple[float, float, float, float],
    top: tuple[float, float, float, float],
    heights: tuple[float, float],
) -> dict[str, Corners]:
    """Return the faces of a box whose top may be smaller: rear (nearest), front, left, right, top.

    Args:
        bottom: x0, x1, z0, z1 of the lower rectangle.
        top: The same of the upper one.
        heights: y of both.

    Returns:
        Corners bottom left, bottom right, top right, top left, as seen from outside.
    """
    (x0, x1, z0, z1), (u0, u1, w0, w1), (y0, y1) = bottom, top, heights
    low = {"a": (x0, y0, z0), "b": (x1, y0, z0), "c": (x1, y0, z1), "d": (x0, y0, z1)}
    high = {"a": (u0, y1, w0), "b": (u1, y1, w0), "c": (u1, y1, w1), "d": (u0, y1, w1)}
    sides = {"rear": ("a", "b"), "front": ("c", "d"), "left": ("d", "a"), "right": ("b", "c")}
    faces = {
        name: np.array([low[p], low[q], high[q], high[p]], dtype=np.float64)
        for name, (p, q) in sides.items()
    }
    return faces | {"top": np.array([high["a"], high["b"], high["c"], high["d"]])}


def patches(
    corners: Corners, across: Sequence[tuple[float, float]], up: Sequence[tuple[float, float]]
) -> Float[np.ndarray, "q 4 3"]:
    """Return rectangles on a face: each span `across` (0 left, 1 right) with each span `up`."""
    s, t = np.array(across, dtype=np.float64), np.array(up, dtype=np.float64)
    s4 = np.tile(s[:, [0, 1, 1, 0]], (len(t), 1))[..., None]
    t4 = np.repeat(t[:, [0, 0, 1, 1]], len(s), axis=0)[..., None]
    low = corners[0] * (1 - s4) + corners[1] * s4
    high = corners[3] * (1 - s4) + corners[2] * s4
    return np.asarray(low * (1 - t4) + high * t4)


@dataclass(frozen=True)
class FaceMap:
    """The face seen at each pixel, and the properties of each face."""

    index: UInt16[np.ndarray, "h w"]
    surfaces: Int[np.ndarray, " f"]
    shades: Float[np.ndarray, " f"]
    tints: Int[np.ndarray, " f"]
    depths: Float[np.ndarray, " f"]


class _Placed(NamedTuple):
    key: float
    points: Points
    model: Model
    tint: int
    anchors: Float[np.ndarray, "3 3"] | None


class World:
    """Models at their places in metres, each with a key that decides when it is painted."""

    def __init__(self) -> None:
        self._placed: list[_Placed] = []

    def copy(self) -> "World":
        """Return a world with the same models, to which others can be added."""
        other = World()
        other._placed = self._placed.copy()
        return other

    def place(
        self,
        model: Model,
        key: float,
        *,
        at: tuple[float, float] = (0.0, 0.0),
        heading: float = 0.0,
        scale: float | tuple[float, float, float] = 1.0,
        tint: int = 0,
        anchors: Float[np.ndarray, "3 3"] | None = None,
    ) -> None:
        """Put a model at (x, z), turned by `heading` radians, anticlockwise as seen from above.

        `scale` is one factor, or one each for x, y and z. `anchors` are three points that move with
        the surface that its faces show; None: three corners of each face.
        """
        points = model.points * np.asarray(scale)
        if heading:
            cos, sin = np.cos(heading), np.sin(heading)
            x, z = points[:, 0].copy(), points[:, 2].copy()
            points[:, 0], points[:, 2] = cos * x - sin * z, sin * x + cos * z
        points = points + np.array([at[0], 0.0, at[1]])
        self._placed.append(_Placed(key, points, model, tint, anchors))

    def paint(self, camera: Camera) -> FaceMap:
        """Project all faces at once and fill them, far to near.

        Pixels without any other face show the first one with the largest key: the sky.
        """
        placed = [self._placed[i] for i in self._order()]
        points = np.concatenate([entry.points for entry in placed])
        counts = np.concatenate([entry.model.counts for entry in placed])
        per_model = [len(entry.model.counts) for entry in placed]
        solid = np.repeat([entry.model.solid for entry in placed], per_model)
        pixels, depth = camera.project(points)
        starts = np.cumsum(counts) - counts
        index = np.zeros(camera.size, dtype=np.uint16)
        fixed = np.clip(np.rint(pixels * (1 << _SUBPIXEL)), -120000, 120000).astype(np.int32)
        seen = _visible(pixels, starts, counts, solid, camera.size)
        for face in np.flatnonzero(seen).tolist():
            start = starts[face]
            polygon = fixed[start : start + counts[face]]
            cv2.fillConvexPoly(index, polygon, face, cv2.LINE_8, _SUBPIXEL)
        return FaceMap(
            index,
            np.concatenate([entry.model.surfaces for entry in placed]),
            np.concatenate([entry.model.shades for entry in placed]),
            np.repeat(np.array([entry.tint for entry in placed]), per_model),
            np.add.reduceat(depth, starts) / counts,
        )

    def anchors(self, camera: Camera) -> Float[np.ndarray, "f 3 3"]:
        """Return three points that move with each face, in the order in which faces were placed.

        Each point is a row as in `Camera.homogeneous`.
        """
        points = np.concatenate([entry.points for entry in self._placed])
        counts = np.concatenate([entry.model.counts for entry in self._placed])
        starts = np.cumsum(counts) - counts
        chosen = points[np.stack([starts, starts + 1, starts + counts - 1], axis=1)]
        first = 0
        for entry in self._placed:
            after = first + len(entry.model.counts)
            if entry.anchors is not None:
                chosen[first:after] = entry.anchors
            first = after
        return camera.homogeneous(chosen.reshape(-1, 3)).reshape(-1, 3, 3)

    def numbers(self) -> Int[np.ndarray, " f"]:
        """Return, for each face of a `FaceMap`, its number in the order of placing."""
        counts, order = np.array([len(e.model.counts) for e in self._placed]), self._order()
        starts, painted = np.cumsum(counts) - counts, counts[order]
        before = np.cumsum(painted) - painted
        return np.repeat(starts[order] - before, painted) + np.arange(counts.sum())

    def _order(self) -> list[int]:
        """Return the numbers of the models in the order of painting."""
        return sorted(range(len(self._placed)), key=lambda i: -self._placed[i].key)


def _visible(
    pixels: Float[np.ndarray, "n 2"],
    starts: Int[np.ndarray, " f"],
    counts: Int[np.ndarray, " f"],
    solid: Bool[np.ndarray, " f"],
    size: tuple[int, int],
) -> Bool[np.ndarray, " f"]:
    """Select faces that touch the map, are not specks, and do not show their back."""
    following = np.arange(1, len(pixels) + 1)
    following[starts + counts - 1] = starts
    x, y = pixels[:, 0], pixels[:, 1]
    area = np.add.reduceat(x * y[following] - x[following] * y, starts)
    low, high = np.minimum.reduceat(pixels, starts), np.maximum.reduceat(pixels, starts)
    inside = (high > 0).all(axis=1) & (low[:, 0] < size[1]) & (low[:, 1] < size[0])
    return inside & (np.abs(area) > 0.6) & (~solid | (area < 0))
