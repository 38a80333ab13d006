"""MIC's block mask."""

import torch
from jaxtyping import Bool
from torch import Generator, Tensor
from torch.nn import functional as F


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
    """True where a pixel is kept."""
    coarse = torch.rand(b, 1, -(-h // block), -(-w // block), generator=generator, device=device)
    return F.interpolate((coarse > ratio).float(), scale_factor=block)[..., :h, :w].bool()
