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

from pipa.streets.surfaces import surface

Points = Float[np.ndarray, "n 3"]
Corners = Float[np.ndarray, "4 3"]

_SUBPIXEL = 3  # fractional bits of the corners of OpenCV's polygons
_NEAR = 0.3  # metres; nearer vertices are moved here, always outside of the image
_BEND_END = 120.0  # metres; beyond it, the street is straight


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
class Camera:
    """A pinhole camera. Angles are in radians, lengths in metres or pixels."""

    x: float
    height: float
    focal: float
    """Focal length in pixels of the map."""
    yaw: float
    roll: float
    horizon: float
    """Row of the horizon in the middle of the map."""
    size: tuple[int, int]
    """Rows and columns of the map."""
    bend: float
    """Curvature of the street: x is shifted by bend * z**2."""

    def project(self, points: Points) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Return columns and rows in the map, and depth in metres."""
        far = np.minimum(points[:, 2], _BEND_END)
        x = points[:, 0] - self.x + self.bend * far * (2 * points[:, 2] - far)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        depth = np.maximum(cos * points[:, 2] + sin * x, _NEAR)
        u = self.focal * (cos * x - sin * points[:, 2]) / depth
        v = self.focal * (self.height - points[:, 1]) / depth
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        column = cos * u - sin * v + self.size[1] / 2
        row = sin * u + cos * v + self.horizon
        return np.column_stack([column, row]), depth


@dataclass(frozen=True)
class FaceMap:
    """The face seen at each pixel, and the properties of each face."""

    index: UInt16[np.ndarray, "h w"]
    surfaces: Int[np.ndarray, " f"]
    shades: Float[np.ndarray, " f"]
    tints: Int[np.ndarray, " f"]
    depths: Float[np.ndarray, " f"]


class World:
    """Models at their places in metres, each with a key that decides when it is painted."""

    def __init__(self) -> None:
        self._placed: list[tuple[float, Points, Model, int]] = []

    def place(
        self,
        model: Model,
        key: float,
        *,
        at: tuple[float, float] = (0.0, 0.0),
        heading: float = 0.0,
        scale: float | tuple[float, float, float] = 1.0,
        tint: int = 0,
    ) -> None:
        """Put a model at (x, z), turned by `heading` radians, anticlockwise as seen from above.

        `scale` is one factor, or one each for x, y and z.
        """
        points = model.points * np.asarray(scale)
        if heading:
            cos, sin = np.cos(heading), np.sin(heading)
            x, z = points[:, 0].copy(), points[:, 2].copy()
            points[:, 0], points[:, 2] = cos * x - sin * z, sin * x + cos * z
        self._placed.append((key, points + np.array([at[0], 0.0, at[1]]), model, tint))

    def paint(self, camera: Camera) -> FaceMap:
        """Project all faces at once and fill them, far to near.

        Pixels without any other face show the first one with the largest key: the sky.
        """
        placed = sorted(self._placed, key=lambda entry: -entry[0])
        points = np.concatenate([entry[1] for entry in placed])
        counts = np.concatenate([model.counts for _, _, model, _ in placed])
        per_model = [len(model.counts) for _, _, model, _ in placed]
        solid = np.repeat([model.solid for _, _, model, _ in placed], per_model)
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
            np.concatenate([model.surfaces for _, _, model, _ in placed]),
            np.concatenate([model.shades for _, _, model, _ in placed]),
            np.repeat(np.array([tint for *_, tint in placed]), per_model),
            np.add.reduceat(depth, starts) / counts,
        )


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
