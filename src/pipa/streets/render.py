"""Rendering of one image of Streets and its labels from a seed."""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from pipa.errors import PipaError
from pipa.streets.gap import CAMERA, GAME, SUPERSAMPLING, develop
from pipa.streets.placing import sample_scene
from pipa.streets.shapes import FaceMap
from pipa.streets.stage import build
from pipa.streets.surfaces import SURFACES

Domain = Literal["game", "camera"]
SMALLEST = 32
"""Minimum number of rows or columns of an image."""


def street(
    seed: int, domain: Domain, *, height: int = 128, width: int = 256, gap: float = 0.5
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Draw one street scene of Streets, pipa's built-in benchmark.

    The same seed shows the same scene in both domains. Classes 16 (train) and 17 (motorcycle) never
    occur; litter bins have no class.

    Args:
        seed: Decides everything; 0 or more. The same seed gives the same pixels on one machine and
            OpenCV version.
        domain: "game" (the labelled source) or "camera" (the target).
        height: Rows, at least 32.
        width: Columns, at least 32; twice the height shows the scene as meant.
        gap: Distance of the camera's look from the game's, 0 (equal) to 1 (unlearnable).

    Returns:
        The RGB image, and Cityscapes train ids, 255 where there is no class.

    Raises:
        PipaError: The gap, the size, the seed or the domain is out of range.
    """
    check_arguments(seed, domain, height, width, gap)
    look = GAME if domain == "game" else GAME.towards(CAMERA, gap)
    layout, details, light = (np.random.default_rng([seed, stream]) for stream in range(3))
    scene = sample_scene(layout)
    camera = look.camera(scene.pose, (height * SUPERSAMPLING, width * SUPERSAMPLING))
    faces = build(scene, details).paint(camera)
    return develop(faces, camera, scene.plan, look, light), _labels(faces)


def check_arguments(seed: int, domain: str, height: int, width: int, gap: float) -> None:
    """Check the arguments of `street`.

    Raises:
        PipaError: The gap, the size, the seed or the domain is out of range.
    """
    if domain not in ("game", "camera"):
        raise PipaError(f"there is no domain {domain!r}", "streets", "Take game or camera.")
    if not 0 <= gap <= 1:
        raise PipaError(f"gap is {gap}", "streets", "It must be between 0 and 1; 0.5 is usual.")
    if min(height, width) < SMALLEST:
        problem = f"an image of {height}x{width} pixels is too small"
        raise PipaError(problem, "streets", f"Take at least {SMALLEST} each way.")
    if seed < 0:
        raise PipaError(f"seed is {seed}", "streets", "It must not be negative.")


def _labels(faces: FaceMap) -> UInt8[np.ndarray, "h w"]:
    """Return the most frequent class of a pixel's four points; the thinner one of two pairs."""
    ranks = _RANK[faces.surfaces].astype(np.uint8)[faces.index]
    a, b, c, d = ranks[::2, ::2], ranks[::2, 1::2], ranks[1::2, ::2], ranks[1::2, 1::2]
    ab, cd, ba, dc = cv2.min(a, b), cv2.min(c, d), cv2.max(a, b), cv2.max(c, d)
    low, high = cv2.min(ab, cd), cv2.max(ba, dc)
    inner_low, inner_high = cv2.max(ab, cd), cv2.min(ba, dc)
    lower, upper = cv2.min(inner_low, inner_high), cv2.max(inner_low, inner_high)
    result = np.where(low == lower, low, high)
    result = np.where(upper == high, high, result)
    result = np.where(lower == upper, lower, result)
    return np.asarray(_CLASS[result])


# from the ground to thin things: where two classes tie, the later one is kept
_ORDER = (10, 9, 0, 1, 2, 3, 8, 4, 16, 14, 15, 13, 255, 11, 12, 17, 18, 7, 6, 5)
_CLASS = np.array(_ORDER, dtype=np.uint8)
_RANK = np.array([_ORDER.index(surface.label) for surface in SURFACES])
