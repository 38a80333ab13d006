"""DAFormer's decoder: context-aware fusion of the maps of four levels.

Hoyer, Dai, Van Gool: DAFormer (CVPR 2022), section 3.2. Every level is embedded to the same width
and brought to stride 4; the stack goes through parallel dilated depthwise-separable convolutions.
Interpolation never aligns corners, as in the authors' configuration.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.models.depthwise import DilatedDepthwise
from pipa.models.segmenter import Decoded

DILATIONS = (1, 6, 12, 18)  # DAFormer@configs/_base_/models/daformer_sepaspp_mitb5.py


class DAFormerHead(nn.Module):
    """Maps at strides 4, 8, 16, 32 -> logits at stride 4.

    Args:
        channels: Channels of each map.
        num_classes: Number of classes, k.
        width: Channels of the embeddings and of the fused map (paper: 256).
        dilations: Dilation of each parallel branch; 1 is a 1x1 convolution. None: a single 1x1
            convolution instead, which is the fusion of HRDA's scale attention.
        dropout: Share of fused channels dropped in training (paper: 0.1).
    """

    cpu_layout = torch.channels_last

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        width: int = 256,
        dilations: Sequence[int] | None = DILATIONS,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        stack = width * len(channels)
        self.embed = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.fuse = Pointwise(stack, width) if dilations is None else _ASPP(stack, width, dilations)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, num_classes, 1)
        nn.init.normal_(self.classify.weight, std=0.01)  # mmsegmentation@decode_head.py
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Decoded:
        """Return logits, and the map that they come from, on the grid of the first map."""
        # One map in another layout would turn the stack, and what follows, into that layout.
        layout = self.cpu_layout if features[0].is_cpu else torch.preserve_format
        features = [map_.to(memory_format=layout) for map_ in features]
        fused = self.fuse(self.embed, features)
        return Decoded(self.classify(self.dropout(fused)), fused)


def stacked(embed: nn.ModuleList, features: list[Tensor]) -> Float[Tensor, "b c h w"]:
    """Embed all levels and bring them to the grid of the first; this order is the authors'."""
    size = features[0].shape[-2:]
    embedded = [layer(map_) for layer, map_ in zip(embed, features, strict=True)]
    finest, *coarser = embedded
    # Autocast on CUDA interpolates in float32: one such map would make the whole stack float32.
    coarser = [F.interpolate(e, size, mode="bilinear").to(finest.dtype) for e in coarser]
    return torch.cat([finest, *coarser], dim=1)


class Pointwise(nn.ModuleList):
    """1x1 convolution of the stack of all levels, batch norm, ReLU; the stack is never made.

    Embedding, interpolation and this convolution are linear, and the weights of an interpolation
    sum to 1. So each level has one kernel of its own, the product of both, applied before it is
    brought to the finest grid: the same function for a fraction of the work.

    Args:
        channels: Channels of the stack.
        width: Channels of the result.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(unit(channels, width, 1))

    def forward(
        self, embed: nn.ModuleList, features: list[Float[Tensor, "b _ _ _"]]
    ) -> Float[Tensor, "b c h w"]:
        """What a unit makes of `stacked(embed, features)`."""
        convolution, norm, relu = cast(Any, self)
        embeddings: Any = embed
        kernels = convolution.weight.flatten(1).split(embeddings[0].out_channels, dim=1)
        maps = []
        for kernel, layer, map_ in zip(kernels, embeddings, features, strict=True):
            with torch.autocast(map_.device.type, enabled=False):  # of weights, hence in float32
                weight, bias = kernel @ layer.weight.flatten(1), kernel @ layer.bias
            maps.append(F.conv2d(map_, weight[..., None, None], bias))
        total = finest = maps[0]
        for map_ in maps[1:]:
            total = total + F.interpolate(map_, finest.shape[-2:], mode="bilinear")
        mixed: Tensor = relu(norm(total.to(finest.dtype)))
        return mixed


class _ASPP(nn.Module):
    """Parallel dilated convolutions, joined by a 3x3 convolution (DAFormer@daformer_head.py)."""

    def __init__(self, channels: int, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.dilations = tuple(dilations)
        self.branches = nn.ModuleList(_branch(channels, width, d) for d in dilations)
        self.bottleneck = unit(width * len(dilations), width, 3)

    def forward(self, embed: nn.ModuleList, features: list[Tensor]) -> Tensor:
        stack, branches = stacked(embed, features), cast(Any, self.branches)
        seen = [
            branch[0](embed, features) if dilation == 1 else branch(stack)
            for branch, dilation in zip(branches, self.dilations, strict=True)
        ]
        joined: Tensor = self.bottleneck(torch.cat(seen, dim=1))
        return joined


def _branch(channels: int, width: int, dilation: int) -> nn.Sequential:
    if dilation == 1:
        return nn.Sequential(Pointwise(channels, width))
    depthwise = with_norm(DilatedDepthwise(channels, dilation))
    return nn.Sequential(depthwise, unit(channels, width, 1))


def unit(channels: int, width: int, kernel: int) -> nn.Sequential:
    """Build a convolution that keeps the size, a batch norm and a ReLU: mmcv's ConvModule."""
    return with_norm(nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False))


def with_norm(convolution: nn.Conv2d) -> nn.Sequential:
    """Add a batch norm and a ReLU to a convolution."""
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    norm = nn.BatchNorm2d(convolution.out_channels)
    return nn.Sequential(convolution, norm, nn.ReLU(inplace=True))
