"""Small changes of an image that should not change the predictions of a good network.

Each returns the changed image, and a function that maps its logits back to the original.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from pipa.batch import Box
from pipa.models.windows import whole

CROP = 0.7
"""Sides of the crop, as a share of the image's."""
SCALES = 0.75, 1.25


@dataclass(frozen=True)
class Perturbed:
    """A changed image, and the way to compare its logits with those of the original."""

    image: Float[Tensor, "1 3 _ _"]
    box: Box
    """Rows and columns of the original that `restore` covers."""
    restore: Callable[[Tensor], Tensor]
    """From logits of the changed image (1, k, _, _) to logits of `box`."""


def perturb(
    image: Float[Tensor, "1 3 h w"], other: Float[Tensor, "1 3 _ _"], generator: Generator
) -> dict[str, Perturbed]:
    """Make all changes, by name.

    Args:
        image: RGB in [0, 1].
        other: Another image, one half of which goes beside a half of this one.
        generator: Decides colours, the crop and the half; on the CPU.
    """
    u = torch.rand(9, generator=generator, dtype=torch.float64)
    down, up = SCALES
    return {
        "mirror": mirror(image),
        "colour": colour(image, u[:6]),
        "smaller": scale(image, down),
        "larger": scale(image, up),
        "crop": crop(image, float(u[6]), float(u[7])),
        "halves": halves(image, other, bool(u[8] < 0.5)),
    }


def mirror(image: Float[Tensor, "1 3 h w"]) -> Perturbed:
    """Swap left and right."""
    return Perturbed(image.flip(3), whole(image), lambda logits: logits.flip(3))


def colour(image: Float[Tensor, "1 3 h w"], u: Float[Tensor, "6"]) -> Perturbed:
    """Multiply each channel by 0.8 .. 1.2 and shift it by up to 0.1; `u` is in [0, 1)."""
    u = u.to(image).view(2, 1, 3, 1, 1)
    changed = (image * (0.8 + 0.4 * u[0]) + 0.2 * u[1] - 0.1).clamp(0, 1)
    return Perturbed(changed, whole(image), lambda logits: logits)


def scale(image: Float[Tensor, "1 3 h w"], factor: float) -> Perturbed:
    """Resize the image by a factor."""
    h, w = image.shape[-2:]
    size = max(1, round(h * factor)), max(1, round(w * factor))
    changed = F.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)
    return Perturbed(
        changed, whole(image), lambda logits: F.interpolate(logits, (h, w), mode="bilinear")
    )


def crop(image: Float[Tensor, "1 3 h w"], row: float, column: float) -> Perturbed:
    """Crop the image, so that the crop's border loses its context.

    Args:
        image: The whole image.
        row: Place of the crop, from the top (0) to the bottom (1).
        column: Place of the crop, from the left (0) to the right (1).
    """
    h, w = image.shape[-2:]
    high, wide = max(1, round(CROP * h)), max(1, round(CROP * w))
    top, left = int(row * (h - high + 1)), int(column * (w - wide + 1))
    box = Box(slice(top, top + high), slice(left, left + wide))
    return Perturbed(image[..., *box], box, lambda logits: logits)


def halves(
    image: Float[Tensor, "1 3 h w"], other: Float[Tensor, "1 3 _ _"], left: bool
) -> Perturbed:
    """Put one half of the image beside the other half of another image, resized to fit."""
    h, w = image.shape[-2:]
    other = F.interpolate(other, (h, w), mode="bilinear", antialias=True).clamp(0, 1)
    middle = max(1, w // 2)
    kept = slice(0, middle) if left else slice(w - middle, w)
    changed = other.clone()
    changed[..., kept] = image[..., kept]
    return Perturbed(changed, Box(slice(0, h), kept), lambda logits: logits[..., kept])
