"""A light decoder: the sum of all levels at stride 4 (a semantic FPN without upsampling stages).

It follows Kirillov et al.: Panoptic Feature Pyramid Networks (CVPR 2019), section 3.1. It is for
small encoders: on CPU, DAFormer's decoder would cost twice as much as they do.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.models.segmenter import Decoded


class FPNHead(nn.Module):
    """Maps at strides 4, 8, 16, 32 -> logits at stride 4.

    Args:
        channels: Channels of each map.
        num_classes: Number of classes, k.
        width: Channels of the sum.
        dropout: Share of the sum's channels dropped in training.
    """

    cpu_layout = torch.channels_last

    def __init__(
        self, channels: Sequence[int], num_classes: int, *, width: int = 48, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        self.embed = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width), nn.ReLU()
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Decoded:
        """Return logits, and the map that they come from, on the grid of the first map."""
        # Adding from coarse to fine gives the same sum for a fraction of the interpolation.
        total: Tensor = self.embed[-1](features[-1])
        for embed, map_ in zip(self.embed[-2::-1], features[-2::-1], strict=True):
            total = embed(map_) + F.interpolate(total, map_.shape[-2:], mode="bilinear")
        fused = self.smooth(total)
        return Decoded(self.classify(self.dropout(fused)), fused)
