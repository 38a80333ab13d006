"""The control for a gain by contrast: plain cross entropy on the patch term's pair."""

import torch
from jaxtyping import Float
from torch import Tensor

from pipa.uda.terms.base import Given, TargetTerm, supervised


class PairCrossEntropy(TargetTerm):
    """Plain cross entropy on the pair, with the teacher's pseudo-labels and their weight.

    It has the images, colours and student passes of `PatchTerm`, but no contrast: a gain of PiPa
    (Chen et al., ACM MM 2023) over self-training that this term also has is not due to contrast.
    Beside `PatchTerm` it takes no further pass: both look at one (`PairPass`).

    Args:
        weight: Factor in the total loss.
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
    """

    name = "pair_cross_entropy"
    needs_pair = True
    needs_teacher = True

    def __init__(self, *, weight: float = 1.0, start: int = 0, warm_up: int = 0) -> None:
        super().__init__(weight, start, warm_up)

    def forward(self, given: Given) -> Float[Tensor, ""]:
        """Return the cross entropy of both crops with the teacher's labels."""
        pseudo = given.pseudo
        assert pseudo is not None
        assert pseudo.pair is not None
        label = torch.cat([crop.label for crop in pseudo.pair])
        weight = torch.cat([crop.weight for crop in pseudo.pair])
        of_crops = [crop.spared for crop in pseudo.pair if crop.spared is not None]
        spared = torch.cat(of_crops) if of_crops else None
        return supervised(given.pair_pass().prediction, label, weight, spared)
