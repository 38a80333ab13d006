"""The softmax that pixel and patch contrast share (PiPa, `L_Pixel` and `L_Patch`).

Each pair of an anchor and a positive competes with that anchor's negatives alone, never with its
other positives (InfoNCE, van den Oord et al., arXiv 1807.03748; SupCon's sum outside the log).
Which pairs exist, and how they are averaged, is decided in `pixel_contrast` and `patch_contrast`.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

NOTHING = -1e30
"""What lowers the similarity of a pair that does not count: its exponential is 0 beside any other.

-inf would give NaN gradients to a row without a negative, and the lowest float32 an infinite sum.
"""


def info_nce(positive: Float[Tensor, "n p"], mass: Float[Tensor, "n 1"]) -> Float[Tensor, "n p"]:
    """Loss of each pair: `-log( exp(s+) / (exp(s+) + exp(mass)) )`, in the domain of logs.

    Args:
        positive: s+, similarity over temperature of anchor n and its p-th positive; any finite
            number where there is no such pair (the caller leaves it out of the mean).
        mass: log of the sum of exp(s-) over the negatives of anchor n.

    Returns:
        Losses >= 0; exactly 0, with a gradient of 0, for an anchor without a negative.
    """
    return F.softplus(mass - positive, threshold=50)  # linear from there on: exp(-50) is 2e-22


def negative_mass(
    similarity: Float[Tensor, "n m"], hidden: Bool[Tensor, "n m"]
) -> Float[Tensor, "n 1"]:
    """Log of the sum of exp(s-) of each row, without what is hidden; about -1e30 for nothing."""
    mass: Tensor = _NegativeMass.apply(similarity, hidden)  # type: ignore[no-untyped-call]
    return mass


def softmax_and_mass(
    similarity: Float[Tensor, "n m"],
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n 1"]]:
    """Softmax of each row, and log of its sum of exponentials; `similarity` is overwritten.

    Exponentials below exp(-80), which no sum can show beside the largest, are 0: MKL would take ten
    times as long for those that underflow, as all hidden ones do.
    """
    if similarity.shape[1] == 0:
        return similarity, similarity.new_full((len(similarity), 1), NOTHING)
    top = similarity.amax(dim=1, keepdim=True)
    share = torch.threshold_(similarity.sub_(top).clamp_(min=-80).exp_(), 2e-35, 0.0)
    total = share.sum(dim=1, keepdim=True)
    return share.div_(total), top + total.log()


class _NegativeMass(torch.autograd.Function):
    """Masked logsumexp of each row, whose gradient takes no further exponential."""

    @staticmethod
    def forward(ctx: Any, similarity: Tensor, hidden: Tensor) -> Tensor:
        # An added mask costs a quarter of `masked_fill` on a CPU.
        masked = torch.add(similarity, hidden.to(similarity.dtype), alpha=NOTHING)
        share, mass = softmax_and_mass(masked)
        ctx.save_for_backward(share)
        return mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        return gradient * share, None


def scaled_similarity(
    rows: Float[Tensor, "n d"],
    columns: Float[Tensor, "m d"],
    temperature: float,
    hidden: Bool[Tensor, "n m"] | None = None,
) -> Float[Tensor, "n m"]:
    """`s(a, b) / tau` of all pairs of unit vectors, in float32 (or wider) even under autocast.

    Half precision has steps of 0.04 near 10, the largest similarity at a temperature of 0.1.

    Args:
        rows: Unit vectors.
        columns: Unit vectors.
        temperature: tau.
        hidden: Pairs that are lowered by `NOTHING`, at no further cost.
    """
    rows, columns = at_least_float32(rows) / temperature, at_least_float32(columns)
    with torch.autocast(rows.device.type, enabled=False):
        if hidden is None:
            return rows @ columns.T
        return torch.addmm(hidden.to(rows.dtype), rows, columns.T, beta=NOTHING)


def self_similarity(rows: Float[Tensor, "n d"], temperature: float) -> Float[Tensor, "n n"]:
    """`scaled_similarity` of rows with themselves, whose gradient takes one product of two."""
    with torch.autocast(rows.device.type, enabled=False):
        rows = at_least_float32(rows)
        similarity: Tensor = _SelfSimilarity.apply(rows, temperature)  # type: ignore[no-untyped-call]
    return similarity


class _SelfSimilarity(torch.autograd.Function):
    """S = R R^T / tau: with dL/dS = G, dL/dR is (G + G^T) R / tau."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, temperature: float) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.temperature = temperature
        return rows / temperature @ rows.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        both = gradient.T.contiguous() + gradient  # a copy in blocks: strided sums are slow
        return both @ (rows / ctx.temperature), None


def at_least_float32(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same numbers in float32, or in float64 where they are that already."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
