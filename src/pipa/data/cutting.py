"""How crops are cut: their size, and that of the image that they are cut from."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipa.data.crops import Size
from pipa.data.dataset import Sample
from pipa.errors import PipaError
from pipa.files.images import fit_size

Margins = tuple[int, int, int, int]
"""Rows and columns at the top, bottom, left and right."""


@dataclass(frozen=True)
class Cutting:
    """How crops are cut.

    Args:
        crop: Height and width.
        resize: Scale each image to fit into this first; None: leave it as it is.
        pad: Fill up images that are smaller than the crop instead of refusing them.
    """

    crop: Size
    resize: Size | None = None
    pad: bool = False

    def fit(self, sample: Sample, scale: float = 1.0) -> Size:
        """Return the size of an image after resizing.

        Raises:
            PipaError: The crop is larger than that.
        """
        before = sample.image.shape[:2]
        height, width = fit_size(before, self.resize)
        size = round(height * scale), round(width * scale)
        if not self.pad and (size[0] < self.crop[0] or size[1] < self.crop[1]):
            resized = "" if size == before else " after resizing"
            raise PipaError(
                f"the crop of {self.crop[0]}x{self.crop[1]} is larger than the image, "
                f"{size[0]}x{size[1]}{resized} (rows x columns)",
                sample.path,
                "Choose a smaller crop, or set `pad: true`.",
            )
        return size


def as_tensor(array: np.ndarray) -> Tensor:
    """The same values as a tensor, which cannot hold NumPy's mirrored views."""
    return torch.from_numpy(np.ascontiguousarray(array))
