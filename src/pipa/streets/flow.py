"""True optical flow between two views of a scene, from the geometry of what is drawn.

Each face is flat, and three of its points are known in every view. A pixel of the face is a
weighted sum of these, with the same weights in every view; so the flow is exact for the pictures as
they are drawn. There is none where the point leaves the image, or something else covers it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pipa.streets.camera import Camera
from pipa.streets.shapes import FaceMap, World
from pipa.streets.textures import Places

Plane = Float[np.ndarray, "*_"]
Faces = Int[np.ndarray, "*_"]
_ACCURACY = 1.0  # pixels of the map; a point this near to another is the same


class View(NamedTuple):
    """What is needed of one frame to follow its points into others.

    Faces are numbered in the order in which they were placed, which is the same in all frames.
    """

    first: Int[np.ndarray, "h w"]
    """The face at the upper left point of each pixel."""
    chosen: Int[np.ndarray, "h w"]
    """The face at a point of each pixel that has the pixel's label."""
    row: Float[np.ndarray, "h w"]
    """Row of that point in the map."""
    column: Float[np.ndarray, "h w"]
    """Column of that point in the map."""
    anchors: Float[np.ndarray, "f 3 3"]
    """Three points of each face, as in `World.anchors`."""
    weights: Float[np.ndarray, "f 3 3"]
    """Turns column, row and 1 into the weights of these, up to a factor above 0."""


def view(
    faces: FaceMap,
    world: World,
    camera: Camera,
    classes: UInt8[np.ndarray, " f"],
    label: UInt8[np.ndarray, "h w"],
) -> View:
    """Note which face each pixel of a frame shows.

    Args:
        faces: The map of the frame.
        world: The faces that are painted in it.
        camera: The camera with which it was painted.
        classes: The class of each face of the map.
        label: The frame's labels.
    """
    first = np.ascontiguousarray(faces.index[::2, ::2])
    y, x = np.nonzero(classes[first] != label)
    place = 2 * np.indices(label.shape, np.float32)
    row, column = place[0], place[1]
    chosen = first.copy()
    for down, right in ((1, 1), (1, 0), (0, 1)):
        other = faces.index[2 * y + down, 2 * x + right]
        fits = classes[other] == label[y, x]
        at = y[fits], x[fits]
        chosen[at], row[at], column[at] = other[fits], 2 * at[0] + down, 2 * at[1] + right
    numbers, anchors = world.numbers(), world.anchors(camera)
    a, b, c = anchors.transpose(1, 0, 2)
    weights = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)], axis=2)  # Cramer's rule
    weights *= np.sign((a * weights[:, :, 0]).sum(axis=1))[:, None, None]
    return View(numbers[first], numbers[chosen], row, column, anchors, weights)


def places_in(first: View, later: View) -> Places:
    """Return row and column of the first frame where the points of a later one lay.

    They may lie outside of the image, or behind something; they are bounded.
    """
    h, w = later.first.shape
    y, x = (part.astype(np.float32) for part in np.ogrid[: 2 * h : 2, : 2 * w : 2])
    row, column, _ = _follow(y, x, later.first, later, first)
    return np.clip(row / 2, -4 * h, 5 * h), np.clip(column / 2, -4 * w, 5 * w)


def flow_between(one: View, other: View) -> Float[np.ndarray, "h w 2"]:
    """Return rows and columns by which each pixel's point moves from one view to another.

    It is nan where the point is not seen in the other view.
    """
    h, w = one.chosen.shape
    row, column, ahead = _follow(one.row, one.column, one.chosen, one, other)
    down, right = (row - one.row) / 2, (column - one.column) / 2
    y, x = (part.astype(np.float32) for part in np.ogrid[:h, :w])
    y, x = np.rint(y + down), np.rint(x + right)
    seen = ahead & (y >= 0) & (y < h) & (x >= 0) & (x < w)
    shown = other.chosen[np.where(seen, y, 0).astype(np.intp), np.where(seen, x, 0).astype(np.intp)]
    at = np.nonzero(seen & (shown != one.chosen))  # another face: does it show the same point?
    back_row, back_column, _ = _follow(row[at], column[at], shown[at], other, one)
    away = np.maximum(abs(back_row - one.row[at]), abs(back_column - one.column[at]))
    seen[at] = away < _ACCURACY
    return np.where(seen[..., None], np.stack([down, right], axis=2), np.float32(np.nan))


def _follow(
    row: Plane, column: Plane, faces: Faces, one: View, other: View
) -> tuple[Plane, Plane, Bool[np.ndarray, "*_"]]:
    """Follow points of faces from one view's map into another's.

    Returns:
        Rows and columns there, and whether the point lies before the camera there.
    """
    matrix = (one.weights @ other.anchors).reshape(-1, 9)
    matrix = (matrix / abs(matrix).max(axis=1, keepdims=True)).T.astype(np.float32)
    u, v, depth = (
        np.take(matrix[i], faces) * column
        + np.take(matrix[i + 3], faces) * row
        + np.take(matrix[i + 6], faces)
        for i in range(3)
    )
    ahead = depth > 0
    depth[~ahead] = 1.0
    return v / depth, u / depth, ahead
