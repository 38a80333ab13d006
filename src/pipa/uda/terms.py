"""What a term of a method is; and those of DAFormer, of MIC, and a control.

PiPa's two are in `pipa_terms`, those that need no labels of the target in `alignment_terms`.

A `SourceTerm` looks at the student's prediction on the labelled source, a `TargetTerm` runs the
student on the unlabelled target. A term owns its projection head or frozen encoder: these are
trained and checkpointed with the run, and are never part of the segmenter that is saved.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from pipa.batch import Batch, Labelled, Unlabelled
from pipa.losses.cross_entropy import cross_entropy
from pipa.losses.feature_distance import downscale_label, feature_distance
from pipa.losses.info_nce import at_least_float32
from pipa.models.segmenter import Prediction, Segmenter
from pipa.uda.augment import block_mask, jitter_and_blur
from pipa.uda.teacher import Pseudo, Teacher


def supervised(
    prediction: Prediction,
    label: Int[Tensor, "b h w"],
    weight: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, ""]:
    """Cross entropy of every output with the label of its box: `L_ce^S`, `L_ce^T`."""
    total = torch.zeros((), device=label.device)
    for output in prediction.outputs:
        truth = label[:, *output.box]
        logits = at_least_float32(output.logits)
        logits = F.interpolate(logits, truth.shape[-2:], mode="bilinear")
        at = None if weight is None else weight[:, *output.box]
        total = total + output.weight * cross_entropy(logits, truth, at)
    return total


class Term(nn.Module, ABC):
    """A named loss with a weight that may start late and warm up linearly.

    Args:
        weight: Its factor in the total loss.
        start: First step (0-based) at which it counts.
        warm_up: Steps over which the weight grows linearly to `weight`.
    """

    name: str

    def __init__(self, weight: float, start: int = 0, warm_up: int = 0) -> None:
        super().__init__()
        self.weight, self.start, self.warm_up = weight, start, warm_up

    def weight_at(self, step: int) -> float:
        """Factor at this step: 0 before `start`, `weight` after the warm-up."""
        if step < self.start:
            return 0.0
        return self.weight * min(1.0, (step - self.start + 1) / max(1, self.warm_up))

    @abstractmethod
    def prepare(self, student: Segmenter) -> None:
        """Build what depends on the student; called once, before training."""


class SourceTerm(Term):
    """A loss on the student's prediction for labelled source images."""

    @abstractmethod
    def forward(
        self, prediction: Prediction, source: Labelled, generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """The loss, not yet weighted."""


class TargetTerm(Term):
    """A loss that runs the student on target images.

    `pseudo` is None where the method has no teacher.
    """

    needs_teacher: bool = False
    """Whether it learns from what the method's teacher says."""

    @abstractmethod
    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo | None,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The loss, not yet weighted."""


def prepared(terms: Sequence[Term], student: Segmenter) -> nn.ModuleList:
    """The terms of a method, built; each needs a name of its own, by which its loss is logged."""
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise ValueError(f"each term needs a name of its own, got {', '.join(names)}")
    for term in terms:
        term.prepare(student)
    return nn.ModuleList(terms)


def weighted(terms: Sequence[Term], step: int, *given: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and weighted loss of each term that counts at this step, from what it is given.

    One by one: who goes backward in between frees a graph before the next is made.
    """
    for term in terms:
        if weight := term.weight_at(step):
            yield term.name, weight * term(*given)


def source_losses(
    student: Segmenter,
    source: Labelled,
    terms: Sequence[SourceTerm],
    step: int,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    """`L_ce^S` and the source terms, weighted, by name: all of one student pass."""
    prediction = student.analyse(source.image)
    losses = {"source": supervised(prediction, source.label)}
    return losses | dict(weighted(terms, step, prediction, source, generator))


class ViewsTerm(TargetTerm):
    """Plain cross entropy on the two views of the patch term: the control for a gain of contrast.

    The same images, colours and student passes as `PatchTerm`, but the teacher's pseudo-labels
    and their weight instead of contrast.

    Args:
        weight: Its factor in the total loss.
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
    """

    name = "views"
    needs_teacher = True

    def __init__(self, *, weight: float = 1.0, start: int = 0, warm_up: int = 0) -> None:
        super().__init__(weight, start, warm_up)

    def prepare(self, student: Segmenter) -> None:
        """Nothing to build."""

    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo | None,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Cross entropy of both views with what the teacher says of each."""
        assert batch.pair is not None
        assert pseudo is not None
        assert pseudo.pair is not None
        first, second = pseudo.pair
        image = jitter_and_blur(
            torch.cat([batch.pair.first.image, batch.pair.second.image]), generator
        )
        label = torch.cat([first.label, second.label])
        weight = torch.cat([first.weight, second.weight])
        return supervised(student.analyse(image), label, weight)


class FeatureDistance(SourceTerm):
    """DAFormer's `L_FD`: features of thing classes stay near those of the pretrained encoder.

    Hoyer, Dai, Van Gool: DAFormer (CVPR 2022), section 3.3.

    Args:
        weight: lambda_FD (DAFormer: 0.005).
        classes: Train ids that count; DAFormer takes the thing classes. None: all.
        min_ratio: Share of a cell that one class must cover to be its label (DAFormer: 0.75).
    """

    name = "feature_distance"
    wanted: Tensor

    def __init__(
        self,
        *,
        weight: float = 0.005,
        classes: Sequence[int] | None = None,
        min_ratio: float = 0.75,
    ) -> None:
        super().__init__(weight)
        self.classes, self.min_ratio = classes, min_ratio
        self.encoder: Segmenter | None = None

    def prepare(self, student: Segmenter) -> None:
        """Keep the student as it is now, frozen."""
        wanted = range(student.num_classes) if self.classes is None else self.classes
        ids = torch.tensor([*wanted], device=student.mean.device)
        self.register_buffer("wanted", ids, persistent=False)
        self.encoder = copy.deepcopy(student).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "FeatureDistance":
        """The frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def forward(
        self, prediction: Prediction, source: Labelled, generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """Distance on the coarsest map of the context; 0 where no thing is in sight."""
        assert self.encoder is not None, "prepare() keeps the pretrained encoder"
        with torch.no_grad():
            reference = self.encoder.context(source.image).features[-1]
        feature = prediction.context.features[-1]
        scale = source.image.shape[-1] // feature.shape[-1]
        num_classes = prediction.outputs[0].logits.shape[1]
        cells = downscale_label(source.label, scale, num_classes, self.min_ratio)
        h, w = cells.shape[-2:]
        return feature_distance(
            feature[..., :h, :w], reference[..., :h, :w], torch.isin(cells, self.wanted)
        )


class MaskedConsistency(TargetTerm):
    """MIC: the student must label a target image, of which it sees a part, as the teacher does.

    Hoyer, Dai, Wang, Van Gool: Masked Image Consistency (CVPR 2023).

    Args:
        weight: Its factor in the total loss (MIC: 1).
        block: Side of a block in pixels (MIC: 64 for 1024, 32 for 512 crops).
        ratio: Share of the blocks that is hidden (MIC: 0.7).
        teacher: Whose labels: "shared", those of the method's teacher; "own", those of a teacher of
            this term alone, as MIC has it on methods without one
            (MIC@mmseg/models/uda/masking_consistency_module.py).
        momentum: Of its own teacher's moving average.
        confidence: Above this a pseudo-label of its own teacher is sure.
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
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
        self.block, self.ratio = block, ratio
        self.needs_teacher = teacher == "shared"
        self.momentum, self.confidence = momentum, confidence
        self.own: OwnTeacher | None = None

    def prepare(self, student: Segmenter) -> None:
        """Copy the student, if it is to have a teacher here."""
        if not self.needs_teacher:
            self.own = OwnTeacher(student, momentum=self.momentum, confidence=self.confidence)

    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo | None,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Cross entropy of the masked image with the teacher's label of the whole one."""
        assert batch.target is not None
        if self.own is not None:
            pseudo = self.own.label(student, batch.target)
        assert pseudo is not None, "a method without a teacher takes terms with their own"
        image = jitter_and_blur(batch.target.image, generator)
        b, _, h, w = image.shape
        seen = block_mask(
            b, h, w, block=self.block, ratio=self.ratio, generator=generator, device=image.device
        )
        image = torch.where(seen, image, student.mean)  # 0 once it is normalised, as in MIC
        return supervised(student.analyse(image), pseudo.label, pseudo.weight)


class OwnTeacher(nn.Module):
    """A teacher that counts its steps itself: one for each time that it is asked for labels.

    Args:
        student: The network to copy.
        momentum: Of the moving average.
        confidence: Above this a pseudo-label is sure.
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
        """The count travels with checkpoints; as a buffer it would have to be asked of the GPU."""
        return torch.tensor(self.steps)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on counting."""
        self.steps = int(state)
