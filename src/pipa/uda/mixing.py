"""Mixed images: a part of a source image is pasted onto a target image, with its labels.

ClassMix: Olsson et al., WACV 2021; between domains: DACS, Tranheden et al., WACV 2021. Two
differences from DAFormer@mmseg/models/utils/dacs_transforms.py: classes are counted in each image,
not in the whole batch, and 255 is not one of them. Small classes first: after the long-tail class
first pasting of DSP, Gao et al., ACM MM 2021. Rectangles: CutMix, Yun et al., ICCV 2019.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pipa.batch import IGNORE_INDEX, Labelled, Unlabelled
from pipa.uda.pseudo import Pseudo

Mix = Literal["class", "small", "rectangle", "none"]
"""The pasted part: see `mix_images`."""
SIDE = 0.7
"""Sides of the rectangle, as a share of the image's."""


@dataclass
class Mixed:
    """x^Mix with its labels and their weight."""

    image: Float[Tensor, "b 3 h w"]
    label: Int[Tensor, "b h w"]
    """Ground truth on the pasted source, pseudo-labels elsewhere."""
    weight: Float[Tensor, "b h w"]
    """1 on the pasted source, the pseudo-labels' weight elsewhere."""
    sure: Bool[Tensor, "b h w"]
    """True on the pasted source, and where the pseudo-labels are sure."""
    spared: Bool[Tensor, "b k h w"] | None = None
    """Classes that the pseudo-labels of an image spare (`Pseudo.spared`); none on the source."""


def mix_images(
    source: Labelled,
    target: Unlabelled,
    pseudo: Pseudo,
    generator: Generator | None = None,
    *,
    mix: Mix = "class",
) -> Mixed:
    """Paste a part of each source image onto the target image beside it.

    Args:
        source: As many images as `target`, of the same size.
        target: The target images.
        pseudo: Their pseudo-labels.
        generator: Decides the pasted part; on the images' device.
        mix: "class": the pixels of half of the classes of the image (ClassMix), the papers' way;
            it needs more than two classes. "small": the same, but small classes come first more
            often, so that things are pasted and large regions of the target stay. "rectangle":
            one of 70 % of the height and the width, at a random place. "none": nothing, so the
            result is the target image.
    """
    if mix == "none":
        return Mixed(target.image, pseudo.label, pseudo.weight, pseudo.sure, pseudo.spared)
    if mix == "rectangle":
        paste = rectangle_mask(source.label, generator)
    else:
        paste = paste_mask(
            source.label, choose_classes(source.label, generator, small=mix == "small")
        )
    return Mixed(
        image=torch.where(paste[:, None], source.image, target.image),
        label=torch.where(paste, source.label, pseudo.label),
        weight=torch.where(paste, 1.0, pseudo.weight),
        sure=paste | pseudo.sure,
        spared=None if pseudo.spared is None else pseudo.spared & ~paste[:, None],
    )


def choose_classes(
    label: Int[Tensor, "b h w"], generator: Generator | None = None, *, small: bool = False
) -> Bool[Tensor, "b 256"]:
    """Choose half of the classes in each image, rounded up, by id; never 255.

    Args:
        label: The labels.
        generator: Decides the classes.
        small: Draw the classes one after the other with probabilities that are inverse to their
            areas in the image, instead of equal ones.
    """
    b = label.shape[0]
    area = torch.zeros(b, IGNORE_INDEX + 1, device=label.device)
    area.scatter_add_(1, label.flatten(1), torch.ones_like(label, dtype=area.dtype).flatten(1))
    area[:, IGNORE_INDEX] = 0
    present = area > 0
    key = torch.rand(present.shape, generator=generator, device=label.device)
    if small:  # the shortest waiting times, at rates of 1 / area, draw without replacement
        key = -torch.log1p(-key) * area
    rank = key.masked_fill(~present, float("inf")).argsort(dim=1).argsort(dim=1)
    half = (present.sum(dim=1, keepdim=True) + 1) // 2
    return rank < half


def paste_mask(label: Int[Tensor, "b h w"], chosen: Bool[Tensor, "b 256"]) -> Bool[Tensor, "b h w"]:
    """Return True for pixels whose class was chosen in their image."""
    return chosen.gather(1, label.flatten(1)).view_as(label)


def rectangle_mask(
    label: Int[Tensor, "b h w"], generator: Generator | None = None
) -> Bool[Tensor, "b h w"]:
    """Draw a rectangle of SIDE of each image's height and width; every place is equally likely.

    Args:
        label: Gives the size and the device; its values do not matter.
        generator: Decides the places.
    """
    _, h, w = label.shape
    rows = _spans(label, h, round(SIDE * h), generator)
    columns = _spans(label, w, round(SIDE * w), generator)
    return rows[:, :, None] & columns[:, None, :]


def _spans(
    label: Int[Tensor, "b h w"], length: int, part: int, generator: Generator | None
) -> Bool[Tensor, "b n"]:
    """Draw, for each image, a span of `part` out of `length` pixels at a random place."""
    b, device = len(label), label.device
    first = torch.randint(length - part + 1, (b, 1), generator=generator, device=device)
    offset = torch.arange(length, device=device) - first
    return (offset >= 0) & (offset < part)
