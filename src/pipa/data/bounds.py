"""What the numbers among the options of `UDAData` can be."""

import math
from typing import Any

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
