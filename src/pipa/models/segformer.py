"""SegFormer's decoder: a linear layer for each level, and one that fuses them.

Xie et al.: SegFormer (NeurIPS 2021), section 3.2.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipa.models.daformer import Pointwise
from pipa.models.segmenter import Decoded


class SegFormerHead(nn.Module):
    """Maps at strides 4, 8, 16, 32 -> logits at stride 4.

    Args:
        channels: Channels of each map.
        num_classes: Number of classes, k.
        width: Channels of the embeddings and of the fused map (SegFormer: 256 for B0 and B1, 768
            for B2 to B5).
        dropout: Share of fused channels dropped in training (SegFormer's code: 0.1).
    """

    cpu_layout = torch.contiguous_format

    def __init__(
        self, channels: Sequence[int], num_classes: int, *, width: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        self.embed = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.fuse = Pointwise(width * len(channels), width)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Decoded:
        """Return logits, and the map that they come from, on the grid of the first map."""
        fused = self.fuse(self.embed, features)
        return Decoded(self.classify(self.dropout(fused)), fused)
