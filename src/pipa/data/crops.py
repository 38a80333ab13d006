"""The geometry of crops: draw where they lie, resize and cut images and labels alike.

A position is a corner (top, left) in the image *as resized*; only the region that a crop needs is
resized. The rules are those of the papers: DAFormer and HRDA for the source, PiPa for the
overlapping pair.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pipa.batch import IGNORE_INDEX
from pipa.data.labels import count_pixels

Size = tuple[int, int]
"""Height and width."""
Corner = tuple[int, int]
"""Top and left."""


def height_and_width(sides: int | Size | list[int]) -> Size:
    """Return a size of which one number may stand for both sides."""
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


Crop = tuple[Corner, UInt8[np.ndarray, "y x"]]
"""Where a crop is cut, and its label."""

ATTEMPTS = 10  # further draws, of `cat_max_ratio` (mmseg) and of rare classes (DAFormer)
_FILL = (124, 116, 104)  # padding: ImageNet's mean, so that it is 0 after normalisation


def draw_corner(rng: np.random.Generator, size: Size, crop: Size) -> Corner:
    """Draw a corner uniformly among those whose crop lies within an image of `size`."""
    top = int(rng.integers(max(size[0] - crop[0], 0) + 1))
    return top, int(rng.integers(max(size[1] - crop[1], 0) + 1))


def pick_varied(draw: Callable[[], Crop], cat_max_ratio: float) -> Crop:
    """Draw crops until no class has more than `cat_max_ratio` of the labelled pixels.

    The crop after `ATTEMPTS` refusals is taken as it is (mmseg's `RandomCrop`). A crop with a
    single class is refused, unless `cat_max_ratio` is 1.

    Args:
        draw: Gives a corner, and the label of the crop there.
        cat_max_ratio: Greatest share of one class (papers: 0.75).
    """
    for _ in range(ATTEMPTS):
        corner, label = draw()
        if cat_max_ratio >= 1:
            return corner, label
        counts = count_pixels(label, IGNORE_INDEX)
        if np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio:
            return corner, label
    return draw()


def cut_image(
    image: UInt8[np.ndarray, "h w 3"], size: Size, corner: Corner, crop: Size
) -> UInt8[np.ndarray, "y x 3"]:
    """Cut a crop of the image as resized bilinearly to `size`, without resizing the rest.

    It equals the crop of the whole resized image, except for a shift of less than 1/32 source
    pixel. If the resized image is smaller than `crop`, the crop is smaller, too: see `pad_image`.
    """
    if size == image.shape[:2]:
        return image[corner[0] : corner[0] + crop[0], corner[1] : corner[1] + crop[1]]
    top, above, rows = _region(image.shape[0], size[0], corner[0], crop[0])
    left, before, columns = _region(image.shape[1], size[1], corner[1], crop[1])
    part = image[top:rows, left:columns]
    resized = cv2.resize(part, None, fx=size[1] / image.shape[1], fy=size[0] / image.shape[0])
    if resized.shape == part.shape:  # a scale so near 1 that OpenCV takes it for 1
        resized, (above, before) = cv2.resize(image, size[::-1]), corner
    return np.asarray(resized[above : above + crop[0], before : before + crop[1]])


def cut_label(
    label: UInt8[np.ndarray, "h w"], size: Size, corner: Corner, crop: Size
) -> UInt8[np.ndarray, "y x"]:
    """Cut a crop of the label as resized to `size` by the nearest pixel (OpenCV's rule)."""
    if size == label.shape:
        return label[corner[0] : corner[0] + crop[0], corner[1] : corner[1] + crop[1]]
    rows = _nearest(label.shape[0], size[0], corner[0], crop[0])
    columns = _nearest(label.shape[1], size[1], corner[1], crop[1])
    return np.asarray(label[rows].take(columns, axis=1))


def cut_flow(
    flow: Float[np.ndarray, "h w 2"], size: Size, corner: Corner, crop: Size
) -> Float[np.ndarray, "crop_h crop_w 2"]:
    """Cut a crop of optical flow as resized to `size`, in pixels of that; nan beyond the image."""
    rows = _nearest(flow.shape[0], size[0], corner[0], crop[0])
    columns = _nearest(flow.shape[1], size[1], corner[1], crop[1])
    part = np.full((*crop, 2), np.nan, np.float32)
    part[: len(rows), : len(columns)] = flow[rows].take(columns, axis=1)
    return part * np.array([size[0] / flow.shape[0], size[1] / flow.shape[1]], np.float32)


def cut_valid(
    margins: tuple[int, int, int, int], source: Size, size: Size, corner: Corner, crop: Size
) -> Bool[np.ndarray, "y x"]:
    """Return where a crop may be trusted: off the margins of the image that it is cut from.

    Args:
        margins: Top, bottom, left, right, in pixels of the image before resizing (HRDA, PiPa:
            30, 240, 30, 30 for Cityscapes' bonnet and rectified borders).
        source: The image's size before resizing.
        size: The image's size after resizing.
        corner: The crop's corner in the resized image.
        crop: The crop's size.
    """
    rows = _nearest(source[0], size[0], corner[0], crop[0])
    columns = _nearest(source[1], size[1], corner[1], crop[1])
    down = (rows >= margins[0]) & (rows < source[0] - margins[1])
    across = (columns >= margins[2]) & (columns < source[1] - margins[3])
    return np.asarray(down[:, None] & across)


def pad_image(image: UInt8[np.ndarray, "h w 3"], crop: Size) -> UInt8[np.ndarray, "y x 3"]:
    """Fill up to the crop's size, below and to the right, with ImageNet's mean colour."""
    down, right = (max(0, want - have) for want, have in zip(crop, image.shape[:2], strict=True))
    if not (down or right):
        return image
    return np.asarray(
        cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT, value=_FILL)
    )


def pad_plane(plane: np.ndarray, crop: Size, value: int) -> np.ndarray:
    """Fill a label or a mask up to the crop's size with `value`."""
    down, right = (max(0, want - have) for want, have in zip(crop, plane.shape, strict=True))
    if not (down or right):
        return plane
    return np.pad(plane, ((0, down), (0, right)), constant_values=value)


def draw_pair(
    rng: np.random.Generator,
    size: Size,
    pair_crop: Size,
    pair_iou: tuple[float, float],
    pair_stride: int,
) -> tuple[Corner, Corner] | None:
    """Draw the corners of two overlapping crops, uniformly over all pairs that meet the bounds.

    Args:
        rng: Makes the choice.
        size: Size of the image.
        pair_crop: Size of both crops.
        pair_iou: Bounds of their intersection over union (release: 0.1 and 1).
        pair_stride: The corners differ by multiples of it (release: 8).

    Returns:
        The two corners; None if no pair meets the bounds.
    """
    shifts, ways = _shifts(size, pair_crop, pair_iou, pair_stride)
    if not len(ways):
        return None
    chosen = int(np.searchsorted(ways, rng.integers(ways[-1]), side="right"))
    (down, right) = shifts[chosen].tolist()
    room = size[0] - pair_crop[0], size[1] - pair_crop[1]
    top = int(rng.integers(room[0] - abs(down) + 1)) - min(down, 0)
    left = int(rng.integers(room[1] - abs(right) + 1)) - min(right, 0)
    return (top, left), (top + down, left + right)


@lru_cache(maxsize=256)
def _shifts(
    size: Size, crop: Size, iou: tuple[float, float], stride: int
) -> tuple[Int[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """List the shifts between the crops that meet the bounds, and how many pairs up to each."""
    reach = [(have - want) // stride for have, want in zip(size, crop, strict=True)]
    if min(reach) < 0:
        return np.empty((0, 2), int), np.empty(0, int)
    steps = [stride * np.arange(-n, n + 1) for n in reach]
    shifts = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 2)
    overlap = np.prod(np.maximum(np.array(crop) - abs(shifts), 0), axis=1)
    share = overlap / (2 * crop[0] * crop[1] - overlap)
    shifts = shifts[(share >= iou[0]) & (share <= iou[1]) & (overlap > 0)]
    ways = np.prod(np.array(size) - np.array(crop) - abs(shifts) + 1, axis=1)
    return shifts, np.cumsum(ways)


def _nearest(length: int, resized: int, start: int, count: int) -> Int[np.ndarray, " n"]:
    """Return the source indices of the pixels `start .. start + count` of a resized axis."""
    places = np.arange(start, min(start + count, resized))
    nearest = np.floor(places * (1 / (resized / length))).astype(int)
    return np.asarray(np.minimum(nearest, length - 1))


def _region(length: int, resized: int, start: int, count: int) -> tuple[int, int, int]:
    """Return the first and last source pixel to resize, and how many resized pixels to drop first.

    Resizing a part begins its sampling grid at the part's first pixel. So the part begins at that
    of the 64 resized pixels before `start` that is nearest to the edge of a source pixel, or at the
    image's edge if none is near; when enlarging, so early that `start` does not look beyond it.
    """
    scale = length / resized
    latest = start if scale >= 1 else max(0, start - int(np.ceil(0.5 / scale)))
    before = np.arange(max(0, latest - 64), latest + 1)
    error = abs(before * scale - (before * scale).round())
    best = start - int(before[error.argmin()] if error.min() < 1 / 32 else 0)
    first = round((start - best) * scale)
    last = first + int(np.ceil((best + count) * scale)) + 2
    return first, best, min(last, length)
