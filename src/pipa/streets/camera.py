"""The camera of a street: a pinhole at some height, from metres to pixels of a map."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Points = Float[np.ndarray, "n 3"]
"""X to the right, Y up, Z along the street, in metres."""

_NEAR = 0.3  # metres; nearer vertices are moved here, always outside of the image
_BEND_END = 120.0  # metres; beyond it, the street is straight


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
    z: float = 0.0
    """Place along the street."""

    def project(self, points: Points) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Return columns and rows in the map, and depth in metres."""
        right, down, depth = self._seen(points)
        depth = np.maximum(depth, _NEAR)
        u, v = self.focal * right / depth, self.focal * down / depth
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        column = cos * u - sin * v + self.size[1] / 2
        row = sin * u + cos * v + self.horizon
        return np.column_stack([column, row]), depth

    def homogeneous(self, points: Points) -> Float[np.ndarray, "n 3"]:
        """Return column and row in the map, each times the depth, and the depth itself.

        Unlike those of `project`, points may lie behind the camera.
        """
        right, down, depth = self._seen(points)
        cos, sin = self.focal * np.cos(self.roll), self.focal * np.sin(self.roll)
        column = cos * right - sin * down + self.size[1] / 2 * depth
        return np.column_stack([column, sin * right + cos * down + self.horizon * depth, depth])

    def _seen(self, points: Points) -> tuple[Float[np.ndarray, " n"], ...]:
        """Return metres to the right, down and ahead of the camera, before its roll."""
        far, ahead = np.minimum(points[:, 2], _BEND_END), points[:, 2] - self.z
        x = points[:, 0] - self.x + self.bend * far * (2 * points[:, 2] - far)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return cos * x - sin * ahead, self.height - points[:, 1], cos * ahead + sin * x
