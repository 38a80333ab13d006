"""Distance between two feature maps, on some classes only (DAFormer, `L_FD`)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipa.batch import IGNORE_INDEX
from pipa.losses.info_nce import at_least_float32
from pipa.losses.masked_mean import masked_mean


def feature_distance(
    feature: Float[Tensor, "b c h w"],
    reference: Float[Tensor, "b c h w"],
    mask: Bool[Tensor, "b h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean Euclidean distance over the cells where `mask` (DAFormer@mmseg/models/uda/dacs.py).

    Args:
        feature: What the student says.
        reference: What it should stay near to: DAFormer's frozen ImageNet encoder. A constant.
        mask: Cells that count (DAFormer: of thing classes); None: all.

    Returns:
        The distance; 0 with a gradient of 0 where the mask is empty (DAFormer: NaN) and where
        both maps are equal.
    """
    difference = at_least_float32(feature) - at_least_float32(reference).detach()
    distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
    if mask is None:
        return distance.mean()
    return masked_mean(distance.flatten(), mask.flatten())


def downscale_label(
    label: Int[Tensor, "b h w"], scale: int, num_classes: int, min_ratio: float = 0.75
) -> Int[Tensor, "b _ _"]:
    """The class of each `scale` x `scale` cell: the one that covers at least `min_ratio` of it.

    Source: DAFormer@mmseg/models/utils/dacs_transforms.py, downscale_label_ratio.

    Args:
        label: Train ids in [0, num_classes), or 255. Rows and columns beyond the last whole cell
            are left out.
        scale: Side of a cell in pixels.
        num_classes: Number of classes.
        min_ratio: Share of the cell's pixels, 255 among them, that the class must have.

    Returns:
        Train ids at (h // scale, w // scale), 255 where no class is so frequent.
    """
    b, rows, columns = label.shape[0], label.shape[-2] // scale, label.shape[-1] // scale
    whole = label[:, : rows * scale, : columns * scale]
    ids = whole.where(whole != IGNORE_INDEX, num_classes)
    cells = ids.reshape(b, rows, scale, columns, scale).transpose(2, 3).flatten(3)

    count = torch.zeros(b, rows, columns, num_classes + 1, device=label.device)
    count.scatter_add_(3, cells, torch.ones_like(cells, dtype=count.dtype))
    most, winner = count.max(dim=3)
    clear = (most >= min_ratio * scale * scale) & (winner < num_classes)
    return winner.where(clear, IGNORE_INDEX)
