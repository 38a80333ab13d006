"""Painting of class ids in colours, alone or over an image; colours for classes without any.

This needs NumPy only, so that a server that predicts needs no plotting library.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8

from pipa.classes import Colour


def colourise(
    label: Integer[np.ndarray, "h w"], colours: Sequence[Colour]
) -> UInt8[np.ndarray, "h w 3"]:
    """Paint each pixel with its class's colour; ids without a colour, such as 255, are black.

    Args:
        label: Class ids, 0..255.
        colours: RGB of class 0, 1, ...
    """
    painted: np.ndarray = _table(colours)[label]
    return painted


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    label: Integer[np.ndarray, "h w"],
    colours: Sequence[Colour],
    alpha: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """Blend class colours into an image; pixels whose id has no colour keep their own.

    Args:
        image: RGB.
        label: Class ids, 0..255.
        colours: RGB of class 0, 1, ...
        alpha: Weight of the class's colour, 0..1.
    """
    share = np.zeros((256, 1), np.float32)
    share[: len(colours)] = alpha
    weight = share[label]
    mixed: np.ndarray = image * (1 - weight) + colourise(label, colours) * weight
    return mixed.round().astype(np.uint8)


def distinct_colours(count: int) -> tuple[Colour, ...]:
    """Choose colours for classes without any: hues a golden angle apart, in four lightnesses."""
    chosen = []
    for i in range(count):
        lightness = (0.4, 0.64, 0.52, 0.76)[i % 4]
        red, green, blue = colorsys.hls_to_rgb((0.58 + i * 0.618034) % 1, lightness, 0.7)
        chosen.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(chosen)


def _table(colours: Sequence[Colour]) -> UInt8[np.ndarray, "256 3"]:
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8).reshape(-1, 3)
    return table
