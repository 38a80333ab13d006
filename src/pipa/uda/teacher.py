"""The teacher: a moving average of the student that labels target images (mean teacher, DACS)."""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipa.batch import CropPair, Unlabelled
from pipa.models.segmenter import Segmenter


@dataclass
class Pseudo:
    """What the teacher says of some target images."""

    label: Int[Tensor, "b h w"]
    weight: Float[Tensor, "b h w"]
    """q_T: share of sure pixels; 0 where the image is not valid."""
    confidence: Float[Tensor, "b h w"]
    pair: "tuple[Pseudo, Pseudo] | None" = None


class Teacher(nn.Module):
    """A frozen copy of the student, that follows it."""

    def __init__(
        self, student: Segmenter, *, momentum: float = 0.999, confidence: float = 0.968
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum, self.confidence = momentum, confidence

    @torch.no_grad()
    def follow(self, student: Segmenter, step: int) -> None:
        """theta_bar <- alpha theta_bar + (1 - alpha) theta."""
        alpha = min(1 - 1 / (step + 1), self.momentum)
        torch._foreach_lerp_(list(self.network.parameters()), list(student.parameters()), 1 - alpha)

    @torch.no_grad()
    def label(self, target: Unlabelled, pair: CropPair | None = None) -> Pseudo:
        """Pseudo-label, weight, confidence."""
        probability, label = self.network(target.image).softmax(1).max(1)
        sure = (probability > self.confidence).float().mean()
        pseudo = Pseudo(label, sure * target.valid, probability)
        if pair is not None:
            pseudo.pair = (self.label(pair.first), self.label(pair.second))
        return pseudo
