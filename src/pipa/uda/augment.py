"""Augmentation on the device: colour jitter and blur (DACS, DAFormer), and MIC's block mask.

Images are in [0, 1]. Colour operations are kornia's, with the meaning and ranges of the papers'
code (kornia 0.5): brightness is *added*, contrast multiplies without a mean, saturation and hue act
in HSV.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from kornia.color import hsv_to_rgb, rgb_to_hsv
from kornia.enhance import adjust_hue_raw, adjust_saturation_raw
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Generator, Tensor

STRENGTH = 0.2
SIGMA = (0.15, 1.15)
_NOTHING = 1e-3  # a sigma that does not change the image


def jitter_and_blur(
    image: Float[Tensor, "b 3 h w"],
    generator: Generator | None = None,
    *,
    jitter: float = 0.8,
    blur: float = 0.5,
) -> Float[Tensor, "b 3 h w"]:
    """Jitter the colours of each image and blur it, by its own draw.

    Args:
        image: RGB in [0, 1].
        generator: Decides every draw; on the image's device or on the CPU.
        jitter: Probability of colour jitter: brightness, contrast, saturation and hue by up to 0.2,
            in random order, but with saturation next to hue (one change to HSV).
        blur: Probability of a Gaussian blur with sigma in 0.15 .. 1.15.
    """
    device = generator.device if generator is not None else image.device
    u = torch.rand(8, len(image), generator=generator, device=device).to(image.device)
    on = (u[0] < jitter).to(u.dtype)
    shift, contrast, saturation = (STRENGTH * (2 * u[i] - 1) * on for i in (1, 2, 3))
    hue = STRENGTH * (2 * u[4] - 1) * on * 2 * math.pi
    order = (u[5] * 6).long().clamp(max=5)
    image = jitter_colours(image, shift, 1 + contrast, 1 + saturation, hue, order)
    sigma = SIGMA[0] + (SIGMA[1] - SIGMA[0]) * u[6]
    return gaussian_blur(image, sigma.where(u[7] < blur, torch.full_like(sigma, _NOTHING)))


def block_mask(
    b: int,
    h: int,
    w: int,
    *,
    block: int = 64,
    ratio: float = 0.7,
    generator: Generator | None = None,
    device: torch.device | str = "cpu",
) -> Bool[Tensor, "b 1 h w"]:
    """Draw a mask that is True for kept pixels (MIC: Hoyer et al., CVPR 2023), block by block.

    Source: MIC@mmseg/models/utils/masking_transforms.py. There blocks are stretched if the size is
    not a multiple of them; here the last ones are cut.

    Args:
        b: Number of images.
        h: Rows of an image.
        w: Columns of an image.
        block: Side of a block in pixels (MIC: 64 for crops of 1024, 32 for 512).
        ratio: Probability that a block is hidden (MIC: 0.7).
        generator: Decides the blocks; on `device`.
        device: Device of the mask.
    """
    rows, columns = -(-h // block), -(-w // block)
    kept = torch.rand(b, 1, rows, columns, generator=generator, device=device) >= ratio
    return kept.repeat_interleave(block, 2)[:, :, :h].repeat_interleave(block, 3)[..., :w]


def jitter_colours(
    image: Float[Tensor, "b 3 h w"],
    shift: Float[Tensor, " b"],
    contrast: Float[Tensor, " b"],
    saturation: Float[Tensor, " b"],
    hue: Float[Tensor, " b"],
    order: Int[Tensor, " b"],
) -> Float[Tensor, "b 3 h w"]:
    """Adjust brightness, contrast, saturation and hue, clamped to [0, 1] after each.

    Args:
        image: RGB in [0, 1].
        shift: Brightness to add; 0 changes nothing.
        contrast: Factor of the image; 1 changes nothing.
        saturation: Factor of the saturation; 1 changes nothing.
        hue: Angle to add to the hue, in radians.
        order: 0..5: which of brightness (B) and contrast (C) come before saturation and hue (H):
            BCH, CBH, BHC, CHB, HBC, HCB.
    """
    bright_first, contrast_first = _is_one_of(order, 0, 1, 2), _is_one_of(order, 0, 1, 3)
    for before in (True, False):
        now = [first if before else ~first for first in (bright_first, contrast_first)]
        image = _affine(image, shift, contrast, now, _is_one_of(order, 1, 5))
        if before:
            hsv = adjust_hue_raw(adjust_saturation_raw(rgb_to_hsv(image), saturation), hue)
            image = hsv_to_rgb(hsv)
    return image


def gaussian_blur(
    image: Float[Tensor, "b 3 h w"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b 3 h w"]:
    """Blur each image by its own sigma; the border is mirrored (DACS).

    The kernel covers a tenth of the image, as in DACS, but has at most 6 pixels on each side: sigma
    is at most 1.15 there, and the weights beyond are below 1e-6.
    """
    rows, columns = (min(kernel_size(n), 13) for n in image.shape[-2:])
    with torch.autocast(image.device.type, enabled=False):  # bfloat16 has fewer steps than a photo
        # kornia's gaussian_blur2d without its check of sigma, which would wait for the device
        across, down = (get_gaussian_kernel1d(size, sigma[:, None]) for size in (columns, rows))
        return filter2d_separable(image, across, down)


def kernel_size(length: int) -> int:
    """Return the odd kernel size for a side of this length, about a tenth of it (DACS)."""
    tenth = math.ceil(0.1 * length)
    return math.floor(tenth - 0.5 + tenth % 2)


def _affine(
    image: Float[Tensor, "b 3 h w"],
    shift: Float[Tensor, " b"],
    contrast: Float[Tensor, " b"],
    now: list[Bool[Tensor, " b"]],
    contrast_first: Bool[Tensor, " b"],
) -> Float[Tensor, "b 3 h w"]:
    """Change brightness and contrast where `now` is True, in either order, clamped in between."""
    shift = (shift * now[0]).view(-1, 1, 1, 1)
    contrast = torch.where(now[1], contrast, 1.0)
    early = torch.where(contrast_first, contrast, 1.0).view(-1, 1, 1, 1)
    late = torch.where(contrast_first, 1.0, contrast).view(-1, 1, 1, 1)
    # kornia's adjust_contrast and adjust_brightness do the same with three copies each
    image = (image * early).clamp_(0, 1)
    return image.add_(shift).clamp_(0, 1).mul_(late).clamp_(0, 1)


def _is_one_of(order: Int[Tensor, " b"], *these: int) -> Bool[Tensor, " b"]:
    return torch.stack([order == one for one in these]).any(dim=0)
