"""Distance between two feature maps, on some classes only (DAFormer's `L_FD`)."""

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pipa.batch import IGNORE_INDEX


def feature_distance(
    feature: Float[Tensor, "b c h w"],
    reference: Float[Tensor, "b c h w"],
    mask: Bool[Tensor, "b h w"],
) -> Float[Tensor, ""]:
    """Mean Euclidean distance of the two maps where `mask`; 0 where it is empty."""
    squared = (feature.float() - reference.float()).square().sum(dim=1)
    distance = squared.clamp(min=1e-24).sqrt()
    return (distance * mask).sum() / mask.sum().clamp(min=1)


def downscale_label(
    label: Int[Tensor, "b h w"], scale: int, num_classes: int, min_ratio: float = 0.75
) -> Int[Tensor, "b _ _"]:
    """The class that covers at least `min_ratio` of each cell, 255 where none does."""
    h, w = label.shape[-2] // scale * scale, label.shape[-1] // scale * scale
    known = label[:, :h, :w].where(label[:, :h, :w] != IGNORE_INDEX, num_classes)
    share = F.avg_pool2d(F.one_hot(known, num_classes + 1).permute(0, 3, 1, 2).float(), scale)
    best, winner = share.max(dim=1)
    keep = (best >= min_ratio) & (winner < num_classes)
    return winner.where(keep, IGNORE_INDEX)
