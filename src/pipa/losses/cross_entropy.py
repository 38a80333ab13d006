"""Cross entropy with a weight for each pixel: `L_ce^S` and `L_ce^T`."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pipa.batch import IGNORE_INDEX


def cross_entropy(
    logits: Float[Tensor, "b k h w"],
    label: Int[Tensor, "b h w"],
    weight: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over *all* pixels of weight times cross entropy; 255 counts in the mean as 0 (mmseg)."""
    loss = F.cross_entropy(logits.float(), label, ignore_index=IGNORE_INDEX, reduction="none")
    if weight is not None:
        loss = loss * weight
    return loss.mean()
