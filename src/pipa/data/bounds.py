"""What the numbers among the options of `UDAData` can be."""

import math
from typing import Any

from pipa.data.crops import Size
from pipa.errors import PipaError

AT_LEAST = {
    **dict.fromkeys(("crop", "batch_size", "pair_crop", "pair_stride"), 1),
    **dict.fromkeys(("source_resize", "target_resize"), 1),
    **dict.fromkeys(("workers", "seed", "min_pixels", "min_crop_ratio", "pair_frames"), 0),
    **dict.fromkeys(("pair_iou", "target_margins", "target_crop_margins"), 0),
}
ABOVE_ZERO = ("rare_class_temperature", "cat_max_ratio", "pair_scale")
AT_MOST = {"cat_max_ratio": 1, "pair_iou": 1}
RANGES = ("pair_iou", "pair_scale")
BOUNDED = (*AT_LEAST, *ABOVE_ZERO)
"""All options that have bounds."""


def check_bounds(name: str, value: Any) -> None:
    """Raise if an option has an impossible value.

    Args:
        name: One of `BOUNDED`.
        value: Its number, its numbers, or None, which is always possible.

    Raises:
        PipaError: A number is too small or too great, or the bounds of a range are in disorder.
    """
    numbers = () if value is None else value if isinstance(value, tuple | list) else (value,)
    lowest, highest = AT_LEAST.get(name), AT_MOST.get(name, math.inf)
    problem = ""
    if lowest is not None and not all(number >= lowest for number in numbers):
        problem = f"expected at least {lowest}"
    elif lowest is None and not all(number > 0 for number in numbers):
        problem = "expected more than 0"
    elif not all(number <= highest for number in numbers):
        problem = f"expected at most {highest}"
    elif name in RANGES and list(numbers) != sorted(numbers):
        problem = "expected the lower bound first"
    if problem:
        raise PipaError(f"is {value}; {problem}", f"--data.{name}")


def default_pair(pair_from: str, crop: Size, stride: int) -> Size:
    """Return the size of two overlapping crops: all of `crop`, or 0.7 of it if they lie inside."""
    if pair_from == "image":
        return crop
    height, width = (max(stride, round(0.7 * side / stride) * stride) for side in crop)
    return height, width


def check_pair(
    pair_from: str,
    pair_crop: Size | None,
    crop: Size,
    pair_scale: tuple[float, float],
    pair_frames: int,
    pair_motion: str,
) -> None:
    """Raise if a pair that lies in the target crop is to be larger, scaled, or of two frames.

    Raises:
        PipaError: The options of the pair do not go together.
    """
    if pair_motion == "flow" and not pair_frames:
        raise PipaError(
            "is flow, but both crops are of one frame",
            "--data.pair_motion",
            "Add --data.pair_frames 1.",
        )
    if pair_from == "image":
        return
    for name, value, plain in (("scale", tuple(pair_scale), (1, 1)), ("frames", pair_frames, 0)):
        if value != plain:
            raise PipaError(
                f"is {value}, but the pair lies in the target crop",
                f"--data.pair_{name}",
                "Add --data.pair_from image.",
            )
    if pair_crop and (pair_crop[0] > crop[0] or pair_crop[1] > crop[1]):
        raise PipaError(
            f"is {pair_crop[0]}x{pair_crop[1]}, larger than the target crop of "
            f"{crop[0]}x{crop[1]} that the pair lies in",
            "--data.pair_crop",
            "Make it smaller, or add --data.pair_from image.",
        )
