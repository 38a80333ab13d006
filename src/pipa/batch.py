"""The data types of one training step, from the draw of its crops to its losses.

In a training step images are float32 RGB in [0, 1], and labels are int64 train ids with 255 where
a pixel has none; the shapes below are those of a step. While a batch is loaded, the same types hold
the contents of files: first single crops, without the axis b, then stacks of them. There images are
uint8 with the shape `h w 3`, and labels are uint8. `pipa.data.loading` converts both on the device.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE_INDEX = 255
"""The id of pixels without a label (Cityscapes' convention): no loss uses them."""


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
