"""MinEnt's entropy term. The arithmetic is in `losses.entropy`."""

import torch
from jaxtyping import Float
from torch import Tensor

from pipa.losses.entropy import entropy
from pipa.uda.terms.base import Given, TargetTerm, upsampled


class EntropyTerm(TargetTerm):
    """MinEnt's `L_ent`: minimise the entropy of the student's predictions on the target.

    Vu et al., ADVENT (CVPR 2019). It is the mean over all pixels of the target, without jitter.

    Args:
        weight: lambda_ent (0.001).
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
    """

    name = "entropy"

    def __init__(self, *, weight: float = 0.001, start: int = 0, warm_up: int = 0) -> None:
        super().__init__(weight, start, warm_up)

    def forward(self, given: Given) -> Float[Tensor, ""]:
        """Return the mean entropy of the outputs, weighted by their shares."""
        assert given.batch.target is not None
        outputs = given.student.analyse(given.batch.target.image).outputs
        each = [output.weight * entropy(upsampled(output)).mean() for output in outputs]
        return torch.stack(each).sum()
