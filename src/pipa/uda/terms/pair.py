"""One pass of the student over both crops of a pair, shared by the terms that look at it."""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from pipa.batch import CropPair
from pipa.models.segmenter import Prediction, Segmenter, View
from pipa.uda.augment import jitter_and_blur


class PairPass:
    """The student's view of both crops, each in colours of its own; computed once, when needed.

    Args:
        student: The student.
        pair: The two crops.
        generator: Decides the colours; on the student's device.
        decode: Whether some term needs logits, so that `view` comes from the same pass; without,
            the decoder does not run.
        jitter: Whether colours are jittered and images blurred.
    """

    def __init__(
        self,
        student: Segmenter,
        pair: CropPair,
        generator: Generator | None = None,
        *,
        decode: bool = False,
        jitter: bool = True,
    ) -> None:
        self.student, self.pair, self.decode = student, pair, decode
        self.image: Float[Tensor, "_ 3 h w"] = torch.cat([pair.first.image, pair.second.image])
        """The first crops, then the second ones: `(2b, 3, h, w)`."""
        if jitter:
            self.image = jitter_and_blur(self.image, generator)

    @cached_property
    def prediction(self) -> Prediction:
        """The student's prediction for both crops."""
        return self.student.analyse(self.image)

    @cached_property
    def view(self) -> View:
        """The widest view of both crops."""
        if self.decode or "prediction" in vars(self):
            return self.prediction.context
        return self.student.context(self.image)
