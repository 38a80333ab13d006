"""DeepLabV2's decoder: the sum of dilated convolutions of the last map ("ASPP").

Chen et al.: DeepLab (TPAMI 2018), section 3.2, in the form that domain adaptation uses: each branch
is one convolution (ADVENT@advent/model/deeplabv2.py, DAFormer@dlv2_head.py). In
AdaptSegNet@model/deeplab.py and DACS@model/deeplabv2.py the sum ends after two branches.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.models.segmenter import Decoded

DILATIONS = (6, 12, 18, 24)  # the paper's ASPP-L


class DeepLabV2Head(nn.Module):
    """The last of four maps -> logits on the grid of the first.

    It is made for a map of stride 8 (`resnet` with `dilated`). It ignores earlier maps: layers for
    these only, such as those of a pyramid, get no gradient from here. HRDA's code fuses these
    logits at stride 8; pipa fuses them, like those of all heads, at stride 4.

    Args:
        channels: Channels of each map.
        num_classes: Number of classes, k.
        dilations: Dilations of the 3x3 convolutions.
    """

    cpu_layout = torch.contiguous_format

    def __init__(
        self, channels: Sequence[int], num_classes: int, *, dilations: Sequence[int] = DILATIONS
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.branches = nn.ModuleList(
            nn.Conv2d(channels[-1], num_classes, 3, padding=d, dilation=d) for d in dilations
        )
        for parameter in self.branches.parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.01)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Decoded:
        """Return logits on the grid of the first map; there is no map below them."""
        total = torch.stack([branch(features[-1]) for branch in self.branches]).sum(0)
        return Decoded(F.interpolate(total, features[0].shape[-2:], mode="bilinear"))
