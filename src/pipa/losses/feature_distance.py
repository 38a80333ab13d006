"""Distance between two feature maps on selected classes (DAFormer, `L_FD`)."""

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
    """Mean Euclidean distance over the cells in `mask` (DAFormer@mmseg/models/uda/dacs.py).

    Args:
        feature: The student's features.
        reference: The features to stay close to (DAFormer: of a frozen ImageNet encoder); a
            constant.
        mask: Cells that count (DAFormer: those of thing classes); None: all.

    Returns:
        The distance; 0 with a gradient of 0 if the mask is empty (DAFormer: NaN) or both maps are
        equal.
    """
    difference = at_least_float32(feature) - at_least_float32(reference).detach()
    distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
    if mask is None:
        return distance.mean()
    return masked_mean(distance.flatten(), mask.flatten())


def downscale_label(
    label: Int[Tensor, "b h w"], scale: int, num_classes: int, min_ratio: float = 0.75
) -> Int[Tensor, "b _ _"]:
    """The class that covers at least `min_ratio` of each `scale` x `scale` cell.

    Source: DAFormer@mmseg/models/utils/dacs_transforms.py, downscale_label_ratio.

    Args:
        label: Train ids in [0, num_classes), or 255. Rows and columns beyond the last whole cell
            are left out.
        scale: Side of a cell in pixels.
        num_classes: Number of classes.
        min_ratio: Share of the cell's pixels, 255 among them, that the class must have.

    Returns:
        Train ids at (h // scale, w // scale); 255 where no class is that frequent.
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
