"""Dilated depthwise convolutions that are fast on a CPU, too.

PyTorch's own take two to ten times the time there as soon as the padding is wider than the kernel
(`benchmarks/layout.py` shows the networks that have them). The same sums without that padding, of
an enlarged image in channels_last, are fast.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class DilatedDepthwise(nn.Conv2d):
    """A 3x3 depthwise convolution without bias that keeps the size.

    Args:
        channels: Channels, c.
        dilation: Distance of the taps, d.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(
            channels,
            channels,
            3,
            padding=dilation,
            dilation=dilation,
            groups=channels,
            bias=False,
        )

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Convolve; the result is that of `nn.Conv2d` up to rounding."""
        if not input.is_cpu or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        apply: Any = _Convolution.apply
        result: Tensor = apply(input, self.weight, self.dilation[0])
        return result


class _Convolution(torch.autograd.Function):
    """The convolution of `DilatedDepthwise`, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, image: Float[Tensor, "b c h w"], weight: Float[Tensor, "c 1 3 3"], dilation: int
    ) -> Float[Tensor, "b c h w"]:
        ctx.save_for_backward(image, weight)
        ctx.dilation = dilation
        return convolve(image, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor, None]:
        image, weight = ctx.saved_tensors
        of_image = convolve(gradient, weight.flip(2, 3), ctx.dilation)
        return of_image, gradient_of_taps(image, gradient, ctx.dilation), None


def convolve(
    image: Float[Tensor, "b c h w"], weight: Float[Tensor, "c 1 3 3"], dilation: int
) -> Float[Tensor, "b c h w"]:
    """Convolve in channels_last, image by image, so that the enlarged one stays in the cache."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    result = torch.empty_like(image, memory_format=torch.channels_last)
    for i in range(len(image)):
        one = image[i : i + 1].contiguous(memory_format=torch.channels_last)
        enlarged = F.pad(one, (dilation,) * 4)
        result[i : i + 1] = F.conv2d(enlarged, weight, dilation=dilation, groups=len(weight))
    return result


def gradient_of_taps(
    image: Float[Tensor, "b c h w"], gradient: Float[Tensor, "b c h w"], dilation: int
) -> Float[Tensor, "c 1 3 3"]:
    """Return the gradient of each tap: sums of products of the image, moved, and the gradient."""
    c, h, w = image.shape[1:]
    result = image.new_zeros(c, 1, 3, 3)
    for i, down in enumerate((-dilation, 0, dilation)):
        for j, right in enumerate((-dilation, 0, dilation)):
            if abs(down) >= h or abs(right) >= w:  # the tap sees the border alone
                continue
            here = gradient[
                :, :, max(0, -down) : h - max(0, down), max(0, -right) : w - max(0, right)
            ]
            there = image[:, :, max(0, down) : h + min(0, down), max(0, right) : w + min(0, right)]
            result[:, 0, i, j] = (here * there).sum(dim=(0, 2, 3))
    return result
