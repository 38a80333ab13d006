"""The block mask of masked image consistency (MIC: Hoyer et al., CVPR 2023)."""

import torch
from jaxtyping import Bool
from torch import Generator, Tensor


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
    """True where a pixel is kept; multiply images by it. Blocks are hidden independently.

    Source: MIC@mmseg/models/utils/masking_transforms.py. There blocks are stretched where the
    size is no multiple of them; here the last ones are cut.

    Args:
        b: Number of images.
        h: Rows of an image.
        w: Columns of an image.
        block: Side of a block in pixels (MIC: 64 for crops of 1024, 32 for 512).
        ratio: Probability that a block is hidden (MIC: 0.7).
        generator: Of `device`.
        device: Where the mask is to lie.
    """
    rows, columns = -(-h // block), -(-w // block)
    kept = torch.rand(b, 1, rows, columns, generator=generator, device=device) >= ratio
    return kept.repeat_interleave(block, 2)[:, :, :h].repeat_interleave(block, 3)[..., :w]
