"""Rendering of Streets from a seed: one image and its labels, or a few frames with their flow."""

from itertools import pairwise
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from pipa.errors import PipaError
from pipa.streets.flow import flow_between, places_in, view
from pipa.streets.gap import CAMERA, GAME, SUPERSAMPLING, develop
from pipa.streets.placing import sample_scene
from pipa.streets.shapes import FaceMap
from pipa.streets.stage import build, with_things
from pipa.streets.surfaces import SURFACES
from pipa.streets.traffic import frames_of, sample_traffic

Domain = Literal["game", "camera"]
SMALLEST = 32
"""Minimum number of rows or columns of an image."""
MOST_FRAMES = 8
"""Maximum length of a sequence: a street is made to be seen from its beginning."""


class Frame(NamedTuple):
    """One frame of a sequence; flow is in rows and columns, and nan where it is not known."""

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"]
    previous: Float[np.ndarray, "h w 2"] | None
    """Where the point seen at each pixel was in the frame before; None: this is the first."""
    next: Float[np.ndarray, "h w 2"] | None
    """Where it will be in the frame after; None: this is the last."""


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
    faces = with_things(build(scene, details), scene).paint(camera)
    return develop(faces, camera, scene.plan, look, light), _labels(faces)


def street_frames(
    seed: int,
    domain: Domain,
    frames: int,
    *,
    height: int = 128,
    width: int = 256,
    gap: float = 0.5,
) -> list[Frame]:
    """Draw a short sequence of one street scene, with true optical flow.

    The camera drives along the street and a little sideways, vehicles and people move; frames are
    0.06 s apart. The first frame is `street`'s image. Light and patterns stay the same, noise is
    new in each frame. Flow holds for the picture as it is drawn; it is nan where the point leaves
    the image or is covered. Where a shadow falls, it is that of the ground.

    Args:
        seed: As in `street`.
        domain: As in `street`.
        frames: Number of frames, 1 to 8.
        height: As in `street`.
        width: As in `street`.
        gap: As in `street`.

    Raises:
        PipaError: An argument is out of range.
    """
    check_arguments(seed, domain, height, width, gap, frames)
    look = GAME if domain == "game" else GAME.towards(CAMERA, gap)
    layout, details, _, moves = (np.random.default_rng([seed, stream]) for stream in range(4))
    scene = sample_scene(layout)
    size = height * SUPERSAMPLING, width * SUPERSAMPLING
    start, empty = look.camera(scene.pose, size), build(scene, details)
    views, drawn = [], []
    for number, at in enumerate(frames_of(scene, sample_traffic(moves, scene), frames)):
        camera, world = look.camera(at.pose, size), with_things(empty, at)
        faces = world.paint(camera)
        label = _labels(faces)
        views.append(view(faces, world, camera, _LABEL[faces.surfaces], label))
        image = develop(
            faces,
            start,
            scene.plan,
            look,
            np.random.default_rng([seed, 2]),
            places=places_in(views[0], views[-1]) if number else None,
            noise=np.random.default_rng([seed, 4, number]) if number else None,
        )
        drawn.append((image, label))
    later = [flow_between(*pair) for pair in pairwise(views)]
    before = [flow_between(*pair[::-1]) for pair in pairwise(views)]
    flows = zip([None, *before], [*later, None], strict=True)
    return [Frame(*one, *flow) for one, flow in zip(drawn, flows, strict=True)]


def check_arguments(
    seed: int, domain: str, height: int, width: int, gap: float, frames: int = 1
) -> None:
    """Check the arguments of `street` and `street_frames`.

    Raises:
        PipaError: The gap, the size, the seed, the domain or the length is out of range.
    """
    if not 1 <= frames <= MOST_FRAMES:
        raise PipaError(f"frames is {frames}", "streets", f"Take 1 to {MOST_FRAMES}.")
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
_LABEL = np.array([surface.label for surface in SURFACES], dtype=np.uint8)
_RANK = np.array([_ORDER.index(surface.label) for surface in SURFACES])
