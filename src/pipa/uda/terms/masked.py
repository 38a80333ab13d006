"""MIC's masked consistency: the student labels a target image of which parts are hidden."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipa.batch import Unlabelled
from pipa.errors import at_least, from_0_to_1
from pipa.models.segmenter import Segmenter
from pipa.uda.augment import block_mask, jitter_and_blur
from pipa.uda.pseudo import Pseudo
from pipa.uda.teacher import Teacher
from pipa.uda.terms.base import Given, TargetTerm, supervised


class MaskedConsistency(TargetTerm):
    """MIC: the student must label a partly hidden target image as the teacher labels all of it.

    Hoyer, Dai, Wang, Van Gool: Masked Image Consistency (CVPR 2023).

    Args:
        weight: Factor in the total loss (MIC: 1).
        block: Side of a block in pixels (MIC: 64 for 1024, 32 for 512 crops).
        ratio: Share of hidden blocks (MIC: 0.7).
        teacher: Source of the labels: "shared", the method's teacher; "own", a teacher of this
            term, as in MIC on methods without one
            (MIC@mmseg/models/uda/masking_consistency_module.py).
        momentum: Momentum of its own teacher's moving average.
        confidence: Minimum probability of a sure pseudo-label of its own teacher.
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.

    Raises:
        PipaError: `block` is below 1, or `ratio` is not in 0 .. 1.
    """

    name = "masked"

    def __init__(
        self,
        *,
        weight: float = 1.0,
        block: int = 64,
        ratio: float = 0.7,
        teacher: Literal["shared", "own"] = "shared",
        momentum: float = 0.999,
        confidence: float = 0.968,
        start: int = 0,
        warm_up: int = 0,
    ) -> None:
        super().__init__(weight, start, warm_up)
        at_least(1, block, "masked.block")
        from_0_to_1(ratio, "masked.ratio")
        self.block, self.ratio = block, ratio
        self.needs_teacher = teacher == "shared"
        self.momentum, self.confidence = momentum, confidence
        self.own: OwnTeacher | None = None

    def prepare(self, student: Segmenter) -> None:
        """Copy the student if the term has a teacher of its own."""
        if not self.needs_teacher:
            self.own = OwnTeacher(student, momentum=self.momentum, confidence=self.confidence)

    def forward(self, given: Given) -> Float[Tensor, ""]:
        """Return the cross entropy of the masked image with the teacher's labels."""
        target, pseudo = given.batch.target, given.pseudo
        assert target is not None
        if self.own is not None:
            pseudo = self.own.label(given.student, target)
        assert pseudo is not None, "in a method without a teacher the term has its own"
        image = jitter_and_blur(target.image, given.generator)
        b, _, h, w = image.shape
        seen = block_mask(
            b,
            h,
            w,
            block=self.block,
            ratio=self.ratio,
            generator=given.generator,
            device=image.device,
        )
        image = torch.where(seen, image, given.student.mean)  # 0 when normalised, as in MIC
        prediction = given.student.analyse(image)
        return supervised(prediction, pseudo.label, pseudo.weight, pseudo.spared)


class OwnTeacher(nn.Module):
    """A teacher that counts its own steps, one for each call of `label`.

    Args:
        student: The network to copy.
        momentum: Momentum of the moving average.
        confidence: Minimum probability of a sure pseudo-label.
    """

    def __init__(self, student: Segmenter, *, momentum: float, confidence: float) -> None:
        super().__init__()
        self.teacher = Teacher(student, momentum=momentum, confidence=confidence)
        self.steps = 0

    def label(self, student: Segmenter, target: Unlabelled) -> Pseudo:
        """Follow the student, then label the target."""
        self.teacher.follow(student, self.steps)
        self.steps += 1
        return self.teacher.label(target)

    def get_extra_state(self) -> Tensor:
        """Save the count in checkpoints; a buffer would have to be read from the GPU."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the count."""
        self.steps = int(state)
