"""The discriminator of AdaptSegNet and ADVENT, which classifies predictions by domain."""

from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from pipa.models.windows import enlarge

MIN_SIDE = 32
"""Minimum side of a map, in pixels: five convolutions of stride 2 reduce it to 1."""


class Discriminator(nn.Module):
    """Five 4x4 convolutions of stride 2, with LeakyReLU between them and without norms.

    Tsai et al., Learning to Adapt Structured Output Space (CVPR 2018), section "Discriminator";
    AdaptSegNet@model/discriminator.py. ADVENT has the same.

    Args:
        num_classes: Channels of the input.
        width: Channels of the first convolution, doubled three times (64).
        lr: Its learning rate (1e-4), with the schedule of the student's.
    """

    optimiser: dict[str, Any]
    """Settings of `uda.optim` for these parameters: Adam with betas 0.9 and 0.99."""

    def __init__(self, num_classes: int, *, width: int = 64, lr: float = 1e-4) -> None:
        super().__init__()
        channels = [num_classes, width, 2 * width, 4 * width, 8 * width, 1]
        layers: list[nn.Module] = []
        for c, d in pairwise(channels):
            layers += [nn.Conv2d(c, d, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])
        self.optimiser = {"lr": lr, "betas": (0.9, 0.99), "weight_decay": 0.0}

    def forward(self, maps: Float[Tensor, "b k h w"]) -> Float[Tensor, "b 1 _ _"]:
        """Return a logit for every 32 x 32 pixels, > 0: target; small maps are padded first."""
        answer: Tensor = self.layers(enlarge(maps, minimum=MIN_SIDE))
        return answer
