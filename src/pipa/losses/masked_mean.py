"""A mean over selected entries, which every loss uses."""

from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(value: Float[Tensor, " n"], keep: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean of the finite `value` where `keep`; 0 with a gradient path if nothing is kept."""
    return (value * keep).sum() / keep.sum().clamp(min=1)
