"""DAFormer's feature distance: the encoder stays close to the pretrained one."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from pipa.batch import Labelled
from pipa.losses.feature_distance import downscale_label, feature_distance
from pipa.models.segmenter import Prediction, Segmenter
from pipa.uda.terms.base import SourceTerm


class FeatureDistance(SourceTerm):
    """DAFormer's `L_FD`: features of thing classes stay close to those of the pretrained encoder.

    Hoyer, Dai, Van Gool: DAFormer (CVPR 2022), section 3.3.

    Args:
        weight: lambda_FD (DAFormer: 0.005).
        classes: Train ids that count. None: the things among the student's classes (DAFormer), or
            all classes of a student whose classes have no names.
        min_ratio: Share of a cell that one class must cover to be its label (DAFormer: 0.75).
    """

    name = "feature_distance"
    needs_pretrained = True
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
        self.needs_things = classes is None
        self.encoder: Segmenter | None = None

    def prepare(self, student: Segmenter) -> None:
        """Copy the student, frozen."""
        wanted: Sequence[int] = range(student.num_classes)
        if self.classes is not None:
            wanted = self.classes
        elif student.labels is not None:
            wanted = student.labels.things
        ids = torch.tensor([*wanted], device=student.mean.device)
        self.register_buffer("wanted", ids, persistent=False)
        self.encoder = copy.deepcopy(student).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "FeatureDistance":
        """Set the mode; the frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def forward(
        self, prediction: Prediction, source: Labelled, generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """Return the distance on the encoder's coarsest map of the context; 0 if no cell counts."""
        assert self.encoder is not None, "prepare() keeps the pretrained encoder"
        with torch.no_grad():
            reference = self.encoder.context(source.image).deepest
        feature = prediction.context.deepest
        pixels = -(-source.image.shape[-1] // feature.shape[-1])
        scale = 1 << (pixels - 1).bit_length()  # the stride: the last column may lie half outside
        num_classes = prediction.outputs[0].logits.shape[1]
        cells = downscale_label(source.label, scale, num_classes, self.min_ratio)
        h, w = cells.shape[-2:]
        return feature_distance(
            feature[..., :h, :w], reference[..., :h, :w], torch.isin(cells, self.wanted)
        )
