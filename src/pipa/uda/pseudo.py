"""Pseudo-labels: the classes that a teacher sees in target images, and what each pixel counts.

DACS's quality weight (Tranheden et al., WACV 2021), as in DAFormer, HRDA and PiPa
(DAFormer@mmseg/models/uda/dacs.py), or weights for each pixel.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PseudoWeight = Literal["share", "confidence", "balanced"]
"""The rule that weights pseudo-labels: see `pseudo_label`."""


@dataclass
class Pseudo:
    """The teacher's labels of target images: p_T and their quality q_T."""

    label: Int[Tensor, "b h w"]
    """The most probable class of every pixel, even if its `weight` is 0."""
    weight: Float[Tensor, "b h w"]
    """In [0, 1]: q_T, the share of sure pixels, or 1 for the pixels that count and 0 for the
    others (see `PseudoWeight`); 0 where the target is not valid."""
    confidence: Float[Tensor, "b h w"]
    """Probability of `label`, in [0, 1]."""
    sure: Bool[Tensor, "b h w"]
    """Pixels that count by themselves: those over the threshold or, if the weights are balanced,
    also the surer half of each class; never those that are not valid."""
    pair: "tuple[Pseudo, Pseudo] | None" = None
    """The labels of the first and the second crop of a `CropPair`, each as it is stored."""
    unnamed: Bool[Tensor, "b k"] | None = None
    """Classes that no counting pixel of the image has (`unnamed_classes`), if the losses spare
    them; None: they spare nothing."""

    @property
    def spared(self) -> Bool[Tensor, "b k h w"] | None:
        """Return `unnamed` for every pixel, as `cross_entropy` wants it; it takes no memory."""
        if self.unnamed is None:
            return None
        return self.unnamed[..., None, None].expand(-1, -1, *self.label.shape[-2:])


def pseudo_label(
    logits: Float[Tensor, "b k h w"],
    valid: Bool[Tensor, "b h w"],
    threshold: float = 0.968,
    *,
    pseudo_weight: PseudoWeight = "share",
) -> Pseudo:
    """Turn logits into pseudo-labels: classes, their probability, and their weight.

    Args:
        logits: The teacher's logits, one plane for each class.
        valid: Pixels whose pseudo-labels may be trusted; the weight is 0 elsewhere.
        threshold: Minimum probability of a sure pixel (DACS: 0.968).
        pseudo_weight: "share": q_T everywhere, the share of *all* pixels that are sure (DACS);
            "confidence": 1 for sure pixels, 0 for the others (FixMatch: Sohn et al., NeurIPS 2020);
            "balanced": 1 for sure pixels and for the surer half of the valid pixels of each class
            of the batch, 0 for the others (the half of each class: CBST, Zou et al., ECCV 2018).
    """
    logits = logits.float()
    best, label = logits.max(dim=1)
    confidence = (best - logits.logsumexp(dim=1)).exp()  # softmax of the best class
    sure = confidence >= threshold
    if pseudo_weight == "share":
        return Pseudo(label, sure.float().mean() * valid, confidence, sure & valid)
    if pseudo_weight == "balanced":
        sure = sure | (confidence >= class_medians(confidence, label, valid, logits.shape[1]))
    sure = sure & valid
    return Pseudo(label, sure.float(), confidence, sure)


def unnamed_classes(
    label: Int[Tensor, "b h w"], weight: Float[Tensor, "b h w"], num_classes: int
) -> Bool[Tensor, "b k"]:
    """Return the classes that no pixel of an image with a weight above 0 has.

    Args:
        label: The class of each pixel, in [0, k).
        weight: What each pixel counts, >= 0.
        num_classes: Number of classes, k.
    """
    count = weight.new_zeros(len(label), num_classes)
    count.scatter_add_(1, label.flatten(1), (weight > 0).to(count).flatten(1))
    return count == 0


def class_medians(
    confidence: Float[Tensor, "*n"],
    label: Int[Tensor, "*n"],
    valid: Bool[Tensor, "*n"],
    num_classes: int,
) -> Float[Tensor, "*n"]:
    """Return, for each pixel, the minimum confidence of the surer half of its class in the batch.

    The half is rounded up, so a class's only pixel belongs to it. In an order by class, and by
    falling confidence within a class, this is the confidence in the middle of the class's run.

    Args:
        confidence: Probability of `label`.
        label: The class of each pixel, in [0, k); any number where a pixel does not count.
        valid: Pixels that count; elsewhere the result has no meaning.
        num_classes: Number of classes, k.
    """
    group = label.where(valid, num_classes).flatten()  # pixels that do not count come last
    order = confidence.flatten().argsort(descending=True)
    order = order[group[order].argsort(stable=True)]
    count = torch.zeros(num_classes + 1, dtype=torch.long, device=group.device)
    count.scatter_add_(0, group, torch.ones_like(group))
    middle = count.cumsum(0) - count + (count + 1) // 2 - 1
    median = confidence.flatten()[order[middle.clamp(min=0)]]
    return median[group].view_as(label)
