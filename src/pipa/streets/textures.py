"""Patterns of the ground and the façades, in metres, looked up where each pixel's ray ends.

A pattern lightens or darkens a surface; its values are about -1 to 1. Tiles are made once from
fixed seeds; an image takes random offsets into them.
"""

from functools import cache

import cv2
import numpy as np
from jaxtyping import Float, Int

from pipa.streets.camera import Camera
from pipa.streets.surfaces import Texture

Plane = Float[np.ndarray, "h w"]
Values = Float[np.ndarray, " n"]
Pixels = Int[np.ndarray, " n"]
Places = tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]
"""Rows and columns in an image, not always whole, nor always inside."""

_TILE = 512  # pixels; a power of two, because tiles repeat by masking
_PER_METRE = 24.0
_FADE = 14.0  # metres; beyond it, patterns lose contrast instead of flickering


class Rays:
    """The rays of an image's pixels, without the camera's roll, and the points where they end."""

    def __init__(self, camera: Camera, size: tuple[int, int], places: Places | None = None) -> None:
        """Compute the rays of a camera (in pixels of the map) for an image's rows and columns.

        With `places` they are the rays of these instead of each pixel's own.
        """
        per_pixel = camera.size[0] / size[0]
        self.size, self.horizon = size, camera.horizon / camera.size[0]
        row, column = places or np.ogrid[: size[0], : size[1]]
        row, column = row.astype(np.float32), column.astype(np.float32)
        self.row, self.column = (np.broadcast_to(part, size).ravel() for part in (row, column))
        row, column = row * np.float32(per_pixel), column * np.float32(per_pixel)
        column, row = column - np.float32(camera.size[1] / 2), row - np.float32(camera.horizon)
        cos, sin = np.cos(camera.roll) / camera.focal, np.sin(camera.roll) / camera.focal
        self.right = (np.float32(cos) * column + np.float32(sin) * row).ravel()
        self.down = (np.float32(cos) * row - np.float32(sin) * column).ravel()
        self._camera = camera
        self._cos, self._sin = np.float32(np.cos(camera.yaw)), np.float32(np.sin(camera.yaw))

    def ground(self, pixels: Pixels) -> tuple[Values, Values, Values]:
        """Return x, z and depth in metres where the rays meet the ground; far above the horizon."""
        u, v, camera = self.right[pixels], self.down[pixels], self._camera
        depth = np.float32(camera.height) / np.maximum(v, np.float32(2e-3))
        z = depth * (self._cos - self._sin * u)
        x = depth * (self._cos * u + self._sin) + np.float32(camera.x)
        return x - np.float32(camera.bend) * z * z, z, depth

    def facade(self, pixels: Pixels, front: float) -> tuple[Values, Values, Values]:
        """Return z, y and depth in metres where the rays meet the plane x = front."""
        u, v, distance = self.right[pixels], self.down[pixels], front - self._camera.x
        towards = (self._cos * u + self._sin) * np.float32(np.sign(distance))
        depth = np.float32(abs(distance)) / np.maximum(towards, np.float32(2e-3))
        return (
            depth * (self._cos - self._sin * u),
            np.float32(self._camera.height) - v * depth,
            depth,
        )


def pattern(
    kinds: Int[np.ndarray, "h w"],
    rays: Rays,
    fronts: tuple[float, float],
    rng: np.random.Generator,
) -> Float[np.ndarray, "h w"]:
    """Return the pattern at each pixel, from dark to light, about -1 to 1.

    Args:
        kinds: The `Texture` of each pixel.
        rays: The rays of the same image.
        fronts: x of the left and the right façades, in metres.
        rng: Draws the offsets.
    """
    shifts = rng.integers(_TILE, size=(len(Texture), 2))
    wall = 3 + int(rng.integers(2))
    size = kinds.shape
    flat = kinds.ravel()
    value = np.zeros(flat.size, dtype=np.float32)
    scale = np.float32(128 / size[0] / _PER_METRE)
    for kind in list(Texture)[1:]:
        pixels = np.flatnonzero(flat == kind)
        if kind in _ON_GROUND:
            x, y, depth = rays.ground(pixels)
            tile, fade = _ON_GROUND[kind], np.minimum(1.0, _FADE / depth)
        elif kind in (Texture.LEFT, Texture.RIGHT):
            x, y, depth = rays.facade(pixels, fronts[kind - Texture.LEFT])
            tile, fade = wall, np.minimum(1.0, _FADE / depth)
        else:
            y, x = scale * rays.row[pixels], scale * rays.column[pixels]
            tile, fade = _ON_SCREEN[kind], np.ones(1, dtype=np.float32)
        if kind == Texture.CLOUDS:
            above = np.float32(rays.horizon) - y / np.float32(scale * size[0])
            wide = 1.2 / np.maximum(above + 0.3, 0.1)
            found = _look_up(
                _tiles()[tile], (x - scale * size[1] / 2) * wide, 2 * y * wide, shifts[kind]
            )
            value[pixels] = found - 0.5 * above
        else:
            value[pixels] = fade * _look_up(_tiles()[tile], x, y, shifts[kind])
    return value.reshape(size)


_ON_GROUND = {Texture.ASPHALT: 0, Texture.SLABS: 1, Texture.GRASS: 2}
_ON_SCREEN = {Texture.GRAIN: 0, Texture.LEAVES: 5, Texture.CLOUDS: 6}


def _look_up(tile: Plane, x: Values, y: Values, shift: Int[np.ndarray, " 2"]) -> Values:
    column = (x * np.float32(_PER_METRE)).astype(np.int32) + int(shift[0])
    row = (y * np.float32(_PER_METRE)).astype(np.int32) + int(shift[1])
    flat = (row & (_TILE - 1)) * _TILE + (column & (_TILE - 1))
    found: Values = tile.ravel()[flat]
    return found


@cache
def _tiles() -> tuple[Plane, ...]:
    """Make the tiles: asphalt, slabs, grass, bricks, plaster, leaves and clouds."""
    rough, fine, soft = _noise(1, 1.2), _noise(2, 0.5), _noise(3, 2.2)
    slabs = 0.5 * _cells(4, (0.89, 0.89), 0.0) + 0.5 * rough
    bricks = 0.7 * _cells(5, (0.42, 0.97), 0.5) + 0.4 * rough
    plaster = 0.6 * soft + 0.5 * rough
    return (
        0.7 * rough + 0.3 * soft,
        slabs,
        0.7 * fine + 0.5 * soft,
        bricks,
        plaster,
        np.tanh(1.6 * _noise(6, 1.1)),
        1.3 * _noise(7, 3.2),
    )


def _noise(seed: int, slope: float) -> Plane:
    """Make periodic noise of unit deviation, whose power falls with frequency ** slope."""
    white = np.random.default_rng(seed).standard_normal((_TILE, _TILE))
    y, x = np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None]
    radius = np.maximum(np.hypot(x, y), 1.5 / _TILE)
    noise = np.fft.irfft2(np.fft.rfft2(white) * radius**-slope, s=(_TILE, _TILE))
    noise = (noise - noise.mean()) / noise.std()
    # sixteenths, so that the last bits of a library's transform do not matter
    rounded: Plane = (np.round(np.clip(noise, -2.5, 2.5) * 16) / 16 * 0.5).astype(np.float32)
    return rounded


def _cells(seed: int, size: tuple[float, float], offset: float) -> Plane:
    """Make bricks or slabs: one value per cell, and dark joints.

    Args:
        seed: Decides the values.
        size: Metres of a cell, rows and columns.
        offset: Share of a cell by which every other row is moved.
    """
    rows, columns = (max(round(_TILE / _PER_METRE / metres), 1) for metres in size)
    rows += rows % 2
    values = np.random.default_rng(seed).uniform(-1, 1, (rows, columns)).astype(np.float32)
    y, x = np.mgrid[:_TILE, :_TILE] / _TILE
    row = (y * rows).astype(int)
    across = x * columns + offset * (row % 2)
    cells = values[row, across.astype(int) % columns]
    joint = (across % 1 < 1.6 * columns / _TILE) | ((y * rows) % 1 < 1.6 * rows / _TILE)
    cells[joint] = -1.4
    smooth: Plane = cv2.blur(cells, (2, 2), borderType=cv2.BORDER_REFLECT)
    return smooth
