"""The data types of one training step, from the draw of its crops to its losses.

In a training step images are float32 RGB in [0, 1], and labels are int64 train ids with 255 where
a pixel has none; the shapes below are those of a step. While a batch is loaded, the same types hold
the contents of files: first single crops, without the axis b, then stacks of them. There images are
uint8 with the shape `h w 3`, and labels are uint8. `pipa.data.loading` converts both on the device.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from pipa.classes import IGNORE_INDEX as IGNORE_INDEX


class Box(NamedTuple):
    """Rows and columns of an image, in pixels; `label[:, *box]` cuts it out."""

    rows: slice
    columns: slice


class Labelled(NamedTuple):
    """Source images and their ground truth."""

    image: Float[Tensor, "b 3 h w"]
    label: Int[Tensor, "b h w"]


class Unlabelled(NamedTuple):
    """Target images; `valid` is False where no pseudo-label may be trusted (padding, margins)."""

    image: Float[Tensor, "b 3 h w"]
    valid: Bool[Tensor, "b h w"]


class CropPair(NamedTuple):
    """Two overlapping crops of the same size from each of `b` target images (PiPa's O1 and O2).

    Pixel (y, x) of an un-flipped first crop is pixel (y - shift[0], x - shift[1]) of the
    un-flipped second crop. The crops are stored flipped left-right where `flipped` says so.
    """

    first: Unlabelled
    second: Unlabelled
    shift: Int[Tensor, "b 2"]
    """Rows and columns from the first crop's corner to the second's, multiples of a stride."""
    flipped: Bool[Tensor, "b 2"]
    """Whether the first, and the second, crop is mirrored."""
    corner: Int[Tensor, "b 2 2"] | None = None
    """Top and left of the first and the second crop in the target crop that both lie in; None: they
    were cut from the image on their own."""
    flow: Float[Tensor, "b 2 h w"] | None = None
    """For crops of two frames: rows and columns by which the point at each pixel of the un-flipped
    first crop moves from frame to frame, to be added to the place above; nan where that is not
    known. None: nothing moves."""

    def cut(
        self, plane: Shaped[Tensor, "b *c H W"]
    ) -> tuple[Shaped[Tensor, "b *c h w"], Shaped[Tensor, "b *c h w"]]:
        """Cut both crops out of a plane over the target crop, as they are stored."""
        assert self.corner is not None, "the pair lies in the target crop"
        height, width = self.first.image.shape[-2:]
        return PairPlace(self.corner, self.flipped).cut(plane, (height, width))


class PairPlace(NamedTuple):
    """Where a `CropPair` lies in its target crop, while a batch is loaded."""

    corner: Int[Tensor, "b 2 2"]
    flipped: Bool[Tensor, "b 2"]

    def of(self, target: Unlabelled, size: tuple[int, int]) -> CropPair:
        """Cut the pair out of the target crops; both crops are of this size."""
        first, second = zip(*(self.cut(plane, size) for plane in target), strict=True)
        shift = self.corner[:, 1] - self.corner[:, 0]
        return CropPair(Unlabelled(*first), Unlabelled(*second), shift, self.flipped, self.corner)

    def cut(
        self, plane: Shaped[Tensor, "b *c H W"], size: tuple[int, int]
    ) -> tuple[Shaped[Tensor, "b *c h w"], Shaped[Tensor, "b *c h w"]]:
        """Cut both crops, of this size, out of a plane over the targets, as they are stored."""
        first, second = (
            cut_crops(plane, self.corner[:, i], self.flipped[:, i], size) for i in (0, 1)
        )
        return first, second


class Batch(NamedTuple):
    """The input of one training step; the target and the pair are None if no term needs them."""

    source: Labelled
    target: Unlabelled | None = None
    pair: CropPair | None = None


class Needs(NamedTuple):
    """The data that a method asks for; see `pipa.UDAData.answer`."""

    target: bool
    """Whether it needs target images."""
    pair: bool
    """Whether it needs two overlapping crops of each target image."""
    rare_classes: bool
    """Whether source images are drawn by their rare classes, if the data allow it."""


def cut_crops(
    plane: Shaped[Tensor, "b *c H W"],
    corner: Int[Tensor, "b 2"],
    flipped: Bool[Tensor, " b"],
    size: tuple[int, int],
) -> Shaped[Tensor, "b *c h w"]:
    """Cut a crop out of each plane, mirrored where `flipped` says so; no value is read.

    Args:
        plane: Images, labels or masks.
        corner: Top and left of each crop; it must lie inside.
        flipped: Whether the crop is mirrored.
        size: Height and width of the crops.
    """
    h, w = size
    image = torch.arange(len(plane), device=plane.device)[:, None, None]
    rows = corner[:, 0, None] + torch.arange(h, device=plane.device)
    across = torch.arange(w, device=plane.device)
    columns = corner[:, 1, None] + torch.where(flipped[:, None], w - 1 - across, across)
    moved = plane.movedim((-2, -1), (1, 2))[image, rows[:, :, None], columns[:, None, :]]
    return moved.movedim((1, 2), (-2, -1)).contiguous()
