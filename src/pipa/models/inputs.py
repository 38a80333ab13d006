"""What `Segmenter.predict` takes: a file, a picture, an array, a tensor, a batch of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from pipa.errors import PipaError
from pipa.files.images import read_image

TAKES = (
    "Give a path, a PIL image, a uint8 array (h, w, 3) or (b, h, w, 3), a float tensor (3, h, w) "
    "or (b, 3, h, w) of RGB in [0, 1], or a list of these."
)


def as_batch(image: Any) -> tuple[Float[Tensor, "b 3 h w"], bool]:
    """Turn an input into what a network takes.

    Args:
        image: A path; a PIL image; a uint8 array, RGB, (h, w, 3) or (b, h, w, 3); a float tensor,
            RGB in [0, 1], (3, h, w) or (b, 3, h, w).

    Returns:
        RGB in [0, 1], and whether the input was a batch: else b is 1.

    Raises:
        PipaError: It is something else, or the file cannot be read.
    """
    if isinstance(image, str | Path):
        image = read_image(Path(image))
    elif isinstance(image, Image.Image):
        image = rgb_of(ImageOps.exif_transpose(image))
    if isinstance(image, Tensor):
        return tensor_batch(image)
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8):
        raise PipaError(f"{named(image)} is no image", remedy=TAKES)
    if image.ndim not in (3, 4) or image.shape[-1] != 3 or 0 in image.shape:
        raise PipaError(f"{named(image)} is no RGB image", remedy=TAKES)
    pixels = torch.from_numpy(np.array(image)).movedim(-1, -3).float() / 255
    return pixels.reshape(-1, *pixels.shape[-3:]), image.ndim == 4


def rgb_of(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Return the pixels of a PIL image; of 16 bits the upper 8, as in a file.

    Raises:
        PipaError: It holds fractions, or whole numbers without a range.
    """
    if image.mode in ("I", "F"):
        raise PipaError(f"a PIL image of mode {image.mode} is no image", remedy=TAKES)
    if image.mode.startswith("I;16"):
        upper = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(upper[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def tensor_batch(image: Tensor) -> tuple[Float[Tensor, "b 3 h w"], bool]:
    """Check a tensor, and give it the axis b.

    Raises:
        PipaError: It has another shape, or values outside of [0, 1].
    """
    fits = image.ndim in (3, 4) and image.shape[-3] == 3 and image.numel() > 0
    if not (fits and image.is_floating_point()):
        raise PipaError(f"{named(image)} is no image", remedy=TAKES)
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise PipaError(f"{named(image)} has values from {low:g} to {high:g}", remedy=TAKES)
    return image.float().reshape(-1, *image.shape[-3:]), image.ndim == 4


def named(image: Any) -> str:
    """Name what was given, with type and shape."""
    shape = getattr(image, "shape", None)
    if shape is None:
        return f"a {type(image).__name__}"
    kind = "tensor" if isinstance(image, Tensor) else "array"
    return f"a {str(image.dtype).removeprefix('torch.')} {kind} of shape {tuple(shape)}"
