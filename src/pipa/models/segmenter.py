"""What every segmentation network answers: logits for people, a `Prediction` for losses.

A network normalises its own input (`mean`, `std` are buffers), so nobody can forget it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipa.batch import Box

IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


@dataclass
class View:
    """Features of one crop of the input, and where that crop lies in it."""

    features: list[Float[Tensor, "b _ _ _"]]
    """Maps at strides 4, 8, 16, 32 of this crop, (b, c_i, h_i, w_i)."""
    box: Box
    """Rows and columns of the input that they describe."""


@dataclass
class Output:
    """Logits to supervise, where they lie in the input, and their share of the loss."""

    logits: Float[Tensor, "b k _ _"]
    box: Box
    weight: float


@dataclass
class Prediction:
    """All that a loss may use of one pass through the student."""

    outputs: list[Output]
    """What to supervise; the first covers the whole input; weights sum to 1 (HRDA: 0.9, 0.1)."""
    context: View
    """The widest view: feature distance, patch contrast."""
    detail: View
    """The sharpest view: pixel contrast. Without HRDA, the same object as `context`."""


class Segmenter(nn.Module, ABC):
    """A segmentation network with `num_classes` outputs.

    Args:
        num_classes: Number of classes, k.
        mean: Mean of each input channel, in units of [0, 1].
        std: Standard deviation of each input channel, in units of [0, 1].
    """

    mean: Tensor
    std: Tensor
    config: dict[str, Any]
    """What `create_segmenter` was told: enough to build the same network again."""

    def __init__(
        self,
        num_classes: int,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.config = {}
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Bring RGB in [0, 1] to the statistics that the backbone was trained with."""
        return (image - self.mean) / self.std

    @abstractmethod
    def analyse(self, image: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Answer for training: logits to supervise and features to contrast, with their places."""

    @abstractmethod
    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Answer for use: logits at the input's size."""
