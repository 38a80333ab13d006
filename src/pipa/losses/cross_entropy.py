"""Cross entropy with a weight for each pixel (PiPa, `L_ce^S` and `L_ce^T`)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pipa.batch import IGNORE_INDEX
from pipa.losses.info_nce import at_least_float32


def cross_entropy(
    logits: Float[Tensor, "b k h w"],
    label: Int[Tensor, "b h w"],
    weight: Float[Tensor, "b h w"] | None = None,
    spared: Bool[Tensor, "b k h w"] | None = None,
) -> Float[Tensor, ""]:
    """Sum of weight times cross entropy, divided by the number of *all* pixels.

    Pixels of label 255 add nothing to the sum, but count in the divisor, and weights are not
    normalised. This is the loss of mmsegmentation 0.16, with which DAFormer, HRDA and PiPa trained
    (mmsegmentation@mmseg/models/losses/cross_entropy_loss.py).

    Args:
        logits: One plane for each class.
        label: Train ids in [0, k), or 255.
        weight: Factor of each pixel, >= 0 (ClassMix: 1 on the source's pixels, q_T on the
            target's); None is 1 everywhere.
        spared: Classes that a pixel's loss does not push down: their probability counts as the
            label's, so the loss is `-log (p_label + sum of p_spared)` (marginal loss: Shi et al.,
            Medical Image Analysis 2021; unbiased cross entropy: Cermelli et al., CVPR 2020).

    Returns:
        The loss; 0 with a gradient of 0 if no pixel has a label.
    """
    # One row per pixel: the softmax runs over memory in order, twice as fast on a CPU.
    rows = at_least_float32(logits).permute(0, 2, 3, 1).flatten(0, 2)
    ids = label.flatten()
    if spared is None:
        loss = F.cross_entropy(rows, ids, ignore_index=IGNORE_INDEX, reduction="none")
    else:
        known = ids != IGNORE_INDEX
        ids = ids.where(known, 0)[:, None]
        log_p = rows.log_softmax(dim=1)
        others = spared.permute(0, 2, 3, 1).flatten(0, 2).scatter(1, ids, False)
        p_spared = (log_p.exp() * others).sum(dim=1)  # no exp(-inf), which takes four times as long
        found = torch.logaddexp(log_p.gather(1, ids)[:, 0], p_spared.clamp(min=1e-30).log())
        loss = -found * known
    loss = loss.view_as(label)
    if weight is not None:
        loss = loss * weight
    return loss.mean()
