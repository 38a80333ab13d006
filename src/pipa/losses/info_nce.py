"""The softmax that both contrasts share."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def info_nce(
    positive: Float[Tensor, "n p"],
    negative: Float[Tensor, "n m"],
    is_negative: Bool[Tensor, "n m"],
) -> Float[Tensor, "n p"]:
    """-log( exp(pos) / (exp(pos) + sum exp(neg)) ) of each similarity over temperature."""
    mass = negative.masked_fill(~is_negative, -torch.inf).logsumexp(1, keepdim=True)
    return torch.logaddexp(positive, mass) - positive
