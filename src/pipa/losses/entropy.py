"""Entropy of predictions (ADVENT: Vu, Jain, Bucher, Cord and Pérez, CVPR 2019)."""

import math

from jaxtyping import Float
from torch import Tensor

from pipa.losses.info_nce import at_least_float32


def entropy(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b h w"]:
    """E of each pixel: `-1 / log k  sum_c p_c log p_c`, in [0, 1].

    The mean of this is ADVENT's `L_ent` as in its code (ADVENT@advent/utils/loss.py); the paper
    has the sum.

    Args:
        logits: One plane for each of k >= 2 classes.

    Returns:
        The entropy: 0 where one class has all the probability, 1 where all have the same.
    """
    return weighted_self_information(logits).sum(dim=1)


def weighted_self_information(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """I of each pixel and class: `-p_c log p_c / log k`, in [0, 1]; entropy is its sum.

    The division by log k is that of the code (ADVENT@advent/utils/func.py, prob_2_entropy); the
    paper's I has none. It is computed in float32 even under autocast.

    Args:
        logits: One plane for each of k >= 2 classes.
    """
    log = at_least_float32(logits).log_softmax(dim=1)
    return -log.exp() * log / math.log(logits.shape[1])
