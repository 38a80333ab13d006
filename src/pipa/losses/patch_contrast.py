"""Patch-wise contrast between two overlapping crops of target images (PiPa, `L_Patch`).

The same place seen in two crops is the positive; negatives are rows of a bank. Finding the second
crop's cell of a place is here; the softmax is in `info_nce` and `bank_mass`; the projection
head and the bank belong to `PatchTerm`.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from pipa.losses.bank_mass import bank_mass
from pipa.losses.info_nce import at_least_float32, info_nce
from pipa.losses.masked_mean import masked_mean

NegativesOf = Literal["learner", "surer"]
"""The crop whose pseudo-class decides which rows repel a place."""
FLOOR = 1e-8
"""Added to the probability of a pair by the release: it bounds the loss of one pair by 18.4."""


def patch_contrast(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "n d"],
    bank: Float[Tensor, "m d"],
    first_label: Int[Tensor, " n"],
    second_label: Int[Tensor, " n"],
    bank_label: Int[Tensor, " m"],
    first_confidence: Float[Tensor, " n"],
    second_confidence: Float[Tensor, " n"],
    temperature: float = 0.1,
    threshold: float = 0.9,
    mutual: bool = False,
    negatives_of: NegativesOf = "learner",
) -> Float[Tensor, ""]:
    """`L_Patch` of places that two crops share, in both directions, computed in float32.

    At each place the less confident crop learns from the more confident one, which is a constant
    there, so only that direction is computed. Where both crops are equally confident, as two
    probabilities that round to 1.0 are, neither learns. The functional form is that of the release
    (PiPa@mmseg/models/uda/dacs.py, which has it from CAC, Lai et al., CVPR 2021); the paper's
    formula has no labels and no confidence.

    Args:
        first: Unit vectors of the places in the first crop.
        second: Unit vectors of the same places in the second crop.
        bank: Candidates for negatives, unit vectors; detached by the caller if they should be.
        first_label: Pseudo-classes of the places in the first crop.
        second_label: Pseudo-classes of the places in the second crop.
        bank_label: Pseudo-classes of the bank's rows. Negatives are the rows of another class; a
            row of 255 is never one.
        first_confidence: Of the pseudo-classes, in [0, 1]; 0 where a place is not to be used.
        second_confidence: The same of the second crop.
        temperature: tau.
        threshold: Confidence that the surer crop must have.
        mutual: Each crop learns from the other, whatever the confidences: for crops that share
            their labels, so that neither is surer.
        negatives_of: The crop whose pseudo-class decides which rows repel: the one that learns, as
            in the release, or the surer one, whose class is right more often.

    Returns:
        Loss of the first crop plus loss of the second, each a mean over the places where that
        crop learns; exactly 0 with a gradient of 0 where none does.
    """
    first_learns = first_confidence < second_confidence
    second_learns = second_confidence < first_confidence  # where both are equal, neither does
    sure = torch.maximum(first_confidence, second_confidence) > threshold
    if mutual:
        one = place_loss(first, second, bank, first_label, bank_label, temperature)
        other = place_loss(second, first, bank, second_label, bank_label, temperature)
        return masked_mean(one, sure) + masked_mean(other, sure)
    at_first = first_learns[:, None]
    loss = place_loss(
        torch.where(at_first, first, second),
        torch.where(at_first, second, first),
        bank,
        torch.where(first_learns == (negatives_of == "learner"), first_label, second_label),
        bank_label,
        temperature,
    )
    return masked_mean(loss, sure & first_learns) + masked_mean(loss, sure & second_learns)


def place_loss(
    query: Float[Tensor, "n d"],
    goal: Float[Tensor, "n d"],
    bank: Float[Tensor, "m d"],
    label: Int[Tensor, " n"],
    bank_label: Int[Tensor, " m"],
    temperature: float,
) -> Float[Tensor, " n"]:
    """Loss of each place of `query`, drawn to `goal`, which does not move."""
    query, goal = at_least_float32(query), at_least_float32(goal).detach()
    positive = (query * goal).sum(dim=1, keepdim=True) / temperature
    mass = bank_mass(query, bank, label, bank_label, temperature)
    loss = info_nce(positive, mass)[:, 0]
    floor = torch.full_like(loss, math.log(FLOOR))
    return -torch.logaddexp(-loss, floor).clamp(max=0)  # at most log 1, also with the floor


def align(
    second: Shaped[Tensor, "b c h w"],
    shift: Int[Tensor, "b 2"],
    flipped: Bool[Tensor, "b 2"],
    flow: Float[Tensor, "b 2 h w"] | None = None,
) -> tuple[Shaped[Tensor, "b c h w"], Bool[Tensor, "b h w"]]:
    """Bring values of the second crop to the grid of the first one, as the first is stored.

    Args:
        second: Features, or numbers of cells, of the second crop, as it is stored.
        shift: Rows and columns from the first crop's corner to the second's, in cells
            (`CropPair.shift` over the stride).
        flipped: Whether the first, and the second, crop is stored mirrored.
        flow: Rows and columns, in cells, by which what each cell of the un-flipped first crop shows
            moves until the second crop; nan where nobody knows. None: nothing moves.

    Returns:
        The second crop's value at each cell of the first, and whether the second sees that
        place; where it does not, the value is some other place's.
    """
    h, w = second.shape[-2:]
    first_flipped, second_flipped = flipped[:, :, None, None].unbind(dim=1)
    y = torch.arange(h, device=second.device)[None, :, None]
    x = torch.arange(w, device=second.device)[None, None, :]
    x = torch.where(first_flipped, w - 1 - x, x)  # now in the un-flipped first crop
    y = y - shift[:, 0, None, None]
    x = x - shift[:, 1, None, None]
    known = torch.ones((), dtype=torch.bool, device=second.device)
    if flow is not None:
        flow = torch.where(first_flipped[:, None], flow.flip(3), flow)
        known = flow.isfinite().all(dim=1)
        down, right = flow.where(known[:, None], 0.0).round().long().unbind(dim=1)
        y, x = y + down, x + right
    seen = known & (y >= 0) & (y < h) & (x >= 0) & (x < w)
    x = torch.where(second_flipped, w - 1 - x, x)
    place = (y.clamp(0, h - 1) * w + x.clamp(0, w - 1)).flatten(1)
    moved = second.flatten(2).gather(2, place[:, None].expand(-1, second.shape[1], -1))
    return moved.view_as(second), seen
