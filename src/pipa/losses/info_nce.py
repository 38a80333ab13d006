"""The softmax that pixel and patch contrast share (PiPa, `L_Pixel` and `L_Patch`).

Each pair of an anchor and a positive competes with that anchor's negatives alone, never with its
other positives (InfoNCE, van den Oord et al., arXiv 1807.03748; SupCon's sum outside the log).
Which pairs exist, and how they are averaged, is decided in `pixel_contrast` and `patch_contrast`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def info_nce(
    positive: Float[Tensor, "n p"],
    negative: Float[Tensor, "n m"],
    is_negative: Bool[Tensor, "n m"],
) -> Float[Tensor, "n p"]:
    """Loss of each pair: `-log( exp(s+) / (exp(s+) + sum exp(s-)) )`, in the domain of logs.

    Args:
        positive: s+, similarity over temperature of anchor n and its p-th positive; any finite
            number where there is no such pair (the caller leaves it out of the mean).
        negative: s-, similarity over temperature of anchor n and candidate m.
        is_negative: Whether candidate m is a negative of anchor n.

    Returns:
        Losses >= 0; exactly 0, with a gradient of 0, for an anchor without a negative.
    """
    nothing = torch.finfo(negative.dtype).min  # -inf would give NaN gradients to an empty row
    mass = negative.masked_fill(~is_negative, nothing).logsumexp(dim=1, keepdim=True)
    return torch.logaddexp(positive, mass) - positive


def scaled_similarity(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], temperature: float
) -> Float[Tensor, "n m"]:
    """`s(a, b) / tau` of all pairs of unit vectors, in float32 (or wider) even under autocast.

    Half precision has steps of 0.04 near 10, the largest similarity at a temperature of 0.1.
    """
    rows, columns = at_least_float32(rows), at_least_float32(columns)
    with torch.autocast(rows.device.type, enabled=False):
        return rows / temperature @ columns.T


def at_least_float32(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same numbers in float32, or in float64 where they are that already."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
