"""The teacher: a moving average of the student that labels target images.

Mean teacher (Tarvainen and Valpola, NeurIPS 2017), with DACS's quality weight (Tranheden et al.,
WACV 2021), as DAFormer, HRDA and PiPa have it (DAFormer@mmseg/models/uda/dacs.py).
"""

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipa.batch import CropPair, Unlabelled
from pipa.models.segmenter import Segmenter


@dataclass
class Pseudo:
    """What the teacher says of some target images: p_T and its quality q_T."""

    label: Int[Tensor, "b h w"]
    """The most probable class of every pixel, also where `weight` is 0."""
    weight: Float[Tensor, "b h w"]
    """q_T, the share of sure pixels, in [0, 1]; 0 where the target is not valid."""
    confidence: Float[Tensor, "b h w"]
    """Probability of `label`, in [0, 1]."""
    pair: "tuple[Pseudo, Pseudo] | None" = None
    """The same of the first and the second crop of a `CropPair`, each as it is stored."""


class Teacher(nn.Module):
    """A frozen copy of a student, that follows it and never gets a gradient.

    In training mode its dropout and stochastic depth are off, and its batch norms take the
    statistics of the images at hand, as the release has it: parameters are averaged, the running
    statistics of norms are neither copied nor averaged, but gathered from what it labels.

    Args:
        student: The network to copy.
        momentum: alpha of the moving average, once it is under way (DAFormer: 0.999).
        confidence: Pixels of at least this probability are sure (DACS: 0.968).
        per_image: Take q_T of each image, as DAFormer's paper has it; by default it is the share
            over the whole batch, as the code of DACS, DAFormer, HRDA and PiPa has it.
    """

    def __init__(
        self,
        student: Segmenter,
        *,
        momentum: float = 0.999,
        confidence: float = 0.968,
        per_image: bool = False,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.momentum, self.confidence, self.per_image = momentum, confidence, per_image
        self.train()

    def train(self, mode: bool = True) -> "Teacher":
        """Training mode for the batch norms that have one, and for nothing inside that is random.

        The network itself keeps the mode: HRDA passes all windows at once for its batch norms.
        """
        super().train(mode)
        for module in self.network.modules():
            if module is not self.network and not isinstance(module, _BatchNorm):
                module.training = False
        return self

    @torch.no_grad()
    def follow(self, student: Segmenter, step: int) -> None:
        """Move to `alpha * teacher + (1 - alpha) * student`.

        alpha is `min(1 - 1 / (step + 1), momentum)`: a plain mean of the first steps.

        Args:
            student: What to follow; as the teacher was built from.
            step: Counts from 0, at which the parameters are copied.
        """
        alpha = min(1 - 1 / (step + 1), self.momentum)
        mine: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(student.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - alpha)  # one kernel for all of them

    @torch.no_grad()
    def label(self, target: Unlabelled, pair: CropPair | None = None) -> Pseudo:
        """Label target images, and the two crops of a pair; images are RGB in [0, 1]."""
        logits = self.network(target.image)
        pseudo = pseudo_label(logits, target.valid, self.confidence, per_image=self.per_image)
        if pair is not None:
            pseudo.pair = self.label(pair.first), self.label(pair.second)
        return pseudo


def pseudo_label(
    logits: Float[Tensor, "b k h w"],
    valid: Bool[Tensor, "b h w"],
    threshold: float = 0.968,
    *,
    per_image: bool = False,
) -> Pseudo:
    """Classes, their probability, and q_T: the share of *all* pixels that reach `threshold`.

    Args:
        logits: The teacher's, one plane for each class.
        valid: Where a pseudo-label may be trusted; the weight is 0 elsewhere.
        threshold: Probability of a sure pixel (DACS: 0.968).
        per_image: q_T of each image instead of one for the batch.
    """
    logits = logits.float()
    best, label = logits.max(dim=1)
    confidence = (best - logits.logsumexp(dim=1)).exp()  # softmax, at the best class alone
    sure = (confidence >= threshold).float()
    quality = sure.mean(dim=(1, 2), keepdim=True) if per_image else sure.mean()
    return Pseudo(label, quality * valid, confidence)
