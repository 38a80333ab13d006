"""A residual network of 0.5 M parameters that learns Streets from scratch on a CPU.

It has GroupNorm, not BatchNorm: GroupNorm generalises better across domains, and batch statistics
would let every extra pass over target images adapt the network, whatever the loss (a confound in
ablations).
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.models.backbones import Backbone

WIDTHS = (32, 48, 96, 128)
DEPTHS = (1, 1, 1, 1)


class Small(Backbone):
    """A stem of stride 4, then stages of residual blocks at strides 4, 8, 16, 32.

    Args:
        widths: Channels of each stage, multiples of 8.
        depths: Blocks of each stage.
    """

    cpu_layout = torch.channels_last

    def __init__(self, widths: Sequence[int] = WIDTHS, depths: Sequence[int] = DEPTHS) -> None:
        super().__init__(list(widths), {"widths": list(widths), "depths": list(depths)})
        # Two steps of stride 2: a single step of stride 4 loses poles, signs and distant people.
        self.stem = nn.Sequential(*_unit(3, 24, stride=2), *_unit(24, widths[0], stride=2))
        before = [widths[0], *widths[:-1]]
        self.stages = nn.ModuleList(
            _stage(before[level], width, depths[level], stride=1 if level == 0 else 2)
            for level, width in enumerate(widths)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return maps at strides 4, 8, 16, 32."""
        features, x = [], self.stem(image)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def blocks(self) -> list[nn.Module]:
        """Return the residual blocks of the four stages."""
        return [block for stage in self.stages for block in cast(nn.Sequential, stage)]


def _unit(channels: int, width: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.GroupNorm(8, width), nn.ReLU()]


def _stage(channels: int, width: int, depth: int, stride: int) -> nn.Sequential:
    first = _Block(channels, width, stride)
    return nn.Sequential(first, *(_Block(width, width, 1) for _ in range(depth - 1)))


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(8, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(8, width)
        same = channels == width and stride == 1
        self.short = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.short(x))


def small(*, settings: Mapping[str, Any] | None = None) -> Small:
    """Build the small network.

    Args:
        settings: The `settings` of an earlier backbone: `widths`, `depths`.
    """
    return Small(**(settings or {}))
