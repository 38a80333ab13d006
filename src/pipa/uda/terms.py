"""The terms that a method may add to self-training: PiPa's two, DAFormer's, MIC's, and a control.

A `SourceTerm` looks at the student's prediction on the labelled source, a `TargetTerm` runs the
student on the unlabelled target. A term owns its projection head or frozen encoder: these are
trained and checkpointed with the run, and are never part of the segmenter that is saved.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from pipa.batch import Batch, Labelled
from pipa.data.colour import strong
from pipa.losses.cross_entropy import cross_entropy
from pipa.losses.feature_distance import downscale_label, feature_distance
from pipa.losses.patch_contrast import align, patch_contrast
from pipa.losses.pixel_contrast import contrast_anchors, sample_anchors
from pipa.models.segmenter import Prediction, Segmenter
from pipa.uda.masking import block_mask
from pipa.uda.teacher import Pseudo


def supervised(
    prediction: Prediction,
    label: Int[Tensor, "b h w"],
    weight: Float[Tensor, "b h w"] | None = None,
) -> Float[Tensor, ""]:
    """Cross entropy of every output with the label of its box: `L_ce^S`, `L_ce^T`."""
    total = torch.zeros((), device=label.device)
    for output in prediction.outputs:
        truth = label[:, *output.box]
        logits = F.interpolate(output.logits, truth.shape[-2:], mode="bilinear")
        at = None if weight is None else weight[:, *output.box]
        total = total + output.weight * cross_entropy(logits, truth, at)
    return total


class Projection(nn.Module):
    """From the maps of a backbone to unit vectors at stride 4: 1x1 - norm - ReLU - 1x1.

    The first 1x1 convolution of the maps upsampled and concatenated, as the release has it
    (PiPa@encoder_decoder.py), is the sum of one convolution per map, taken before upsampling:
    the same function for a fraction of the memory.

    Args:
        channels: Channels of each map.
        width: Channels between the convolutions.
        dim: Length of a vector, d.
    """

    def __init__(self, channels: Sequence[int], width: int, dim: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.norm = nn.GroupNorm(8, width)
        self.leave = nn.Conv2d(width, dim, 1)

    def forward(self, features: list[Tensor]) -> Float[Tensor, "b d h w"]:
        """Embed the maps of one view; `h, w` are those of the first."""
        size = features[0].shape[-2:]
        mixed = self.enter[0](features[0])
        for enter, feature in zip(self.enter[1:], features[1:], strict=True):
            mixed = mixed + F.interpolate(enter(feature), size, mode="bilinear")
        return F.normalize(self.leave(F.relu(self.norm(mixed))).float(), dim=1)


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
    """A loss that runs the student on target images."""

    @abstractmethod
    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The loss, not yet weighted."""


class PixelTerm(SourceTerm):
    """PiPa's `L_Pixel`: pixels of one class attract, of other classes repel, on the source.

    Args:
        weight: alpha of the paper (0.1).
        temperature: tau (0.1 in the release).
        anchors: Anchors of one step at most (release: 1024).
        per_class: Anchors of one class of one image at most (release: 100).
        sampling: "hard": half of the anchors where the student's decoder is wrong;
            "random": anywhere in the class.
        similarity: Share of the least similar positives and of the most similar negatives that
            count for an anchor; 0.1 is the paper's rule, None takes all.
        width: Width of the projection head (release: 1024).
        dim: Length of an embedding (release: 256).
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
    """

    name = "pixel"

    def __init__(
        self,
        *,
        weight: float = 0.1,
        temperature: float = 0.1,
        anchors: int = 1024,
        per_class: int = 100,
        sampling: Literal["hard", "random"] = "hard",
        similarity: float | None = None,
        width: int = 256,
        dim: int = 256,
        start: int = 0,
        warm_up: int = 0,
    ) -> None:
        super().__init__(weight, start, warm_up)
        self.temperature, self.anchors, self.per_class = temperature, anchors, per_class
        self.sampling, self.similarity = sampling, similarity
        self.width, self.dim = width, dim
        self.head: Projection | None = None

    def prepare(self, student: Segmenter) -> None:
        """Build the projection head h_pixel."""
        self.head = Projection(student.backbone.channels, self.width, self.dim)

    def forward(
        self, prediction: Prediction, source: Labelled, generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """The loss of one batch; 0 with a gradient path where nothing can be contrasted."""
        view = prediction.detail
        head = self.head = self.head or projection_for(view.features, self.width, self.dim)
        embedding = head(view.features)
        label = labels_on_grid(source.label[:, *view.box], embedding.shape[-2:])
        guess = None
        if self.sampling == "hard":
            sharpest = prediction.outputs[-1]  # the output of the detail's box
            guess = F.interpolate(sharpest.logits.detach(), label.shape[-2:], mode="bilinear")
            guess = guess.argmax(1)
        chosen = sample_anchors(
            label,
            guess,
            num_classes=prediction.outputs[0].logits.shape[1],
            per_class=self.per_class,
            total=self.anchors,
            generator=generator,
        )
        rows = embedding.permute(0, 2, 3, 1).flatten(0, 2)
        return contrast_anchors(
            rows[chosen.index],
            chosen.label,
            chosen.valid,
            temperature=self.temperature,
            similarity=self.similarity,
        )


class PatchTerm(TargetTerm):
    """PiPa's `L_Patch`: a place seen in two overlapping crops keeps its feature, on the target.

    Both crops go through the student, each with its own colours and mirroring. Pseudo-classes and
    confidences are the teacher's, where it has labelled the pair, else the student's own decoder's.

    Args:
        weight: beta of the paper (0.1).
        temperature: tau (0.1 in the release).
        threshold: Confidence that the better view must have (0.9 in the release).
        queries: Places per step and direction (release: 1600 negatives per view).
        memory: Rows of earlier steps that serve as negatives (release: three steps).
        width: Width of the projection head.
        dim: Length of an embedding (release: 128).
        jitter: Colour jitter and blur, drawn for each view.
        start: First step at which it counts (release: 10 000).
        warm_up: Steps of linear growth of the weight.
    """

    name = "patch"
    bank: Tensor
    bank_label: Tensor

    def __init__(
        self,
        *,
        weight: float = 0.1,
        temperature: float = 0.1,
        threshold: float = 0.9,
        queries: int = 1600,
        memory: int = 4800,
        width: int = 256,
        dim: int = 128,
        jitter: bool = True,
        start: int = 0,
        warm_up: int = 0,
    ) -> None:
        super().__init__(weight, start, warm_up)
        self.temperature, self.threshold, self.queries = temperature, threshold, queries
        self.width, self.dim, self.jitter = width, dim, jitter
        self.head: Projection | None = None
        self.register_buffer("bank", torch.zeros(memory, dim))
        self.register_buffer("bank_label", torch.full((memory,), -1))
        self.views: tuple[Tensor, Tensor] | None = None

    def prepare(self, student: Segmenter) -> None:
        """Build the projection head h_patch."""
        self.head = Projection(student.backbone.channels, self.width, self.dim)

    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one batch; 0 with a gradient path where no place is confident."""
        pair = batch.pair
        assert pair is not None, "the data module makes pairs when `pair_crop` is set"
        images = torch.cat([pair.first.image, pair.second.image])
        if self.jitter:
            images = strong(images, generator)
        self.views = tuple(images.chunk(2))
        view, label, confidence = self._look(student, images, pseudo)
        head = self.head = self.head or projection_for(view.features, self.width, self.dim)
        embedding = head(view.features)
        h, w = embedding.shape[-2:]
        valid = on_grid(torch.cat([pair.first.valid, pair.second.valid]), (h, w))
        label = on_grid(label, (h, w)).masked_fill(~valid, IGNORE_INDEX)
        confidence = on_grid(confidence, (h, w)).masked_fill(~valid, 0)

        # The second view, brought to the first one's grid: same index, same place.
        stride = images.shape[-2] // h
        first, second = embedding.chunk(2)
        planes = torch.stack([label.float(), confidence], dim=1).chunk(2)
        moved, seen = align(second, pair.shift // stride, pair.flipped)
