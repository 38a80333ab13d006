"""The projection heads h_pixel and h_patch, and labels on their grid."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.errors import PipaError, at_least


class Projection(nn.Module):
    """A head from the maps of a backbone to unit vectors at stride 4: 1x1 - norm - ReLU - 1x1.

    The release has one 1x1 convolution of the upsampled and concatenated maps
    (PiPa@encoder_decoder.py). Here it is the sum of one convolution per map, taken before
    upsampling: the same function for a fraction of the memory.

    Args:
        channels: Channels of each map.
        width: Channels between the convolutions.
        dim: Length of a vector, d.
    """

    def __init__(self, channels: Sequence[int], width: int, dim: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.norm = nn.GroupNorm(8, width)
        self.leave = nn.Conv2d(width, dim, 1)

    def forward(self, features: list[Tensor]) -> Float[Tensor, "b d h w"]:
        """Embed the maps of one view; `h, w` are the size of the first."""
        size = features[0].shape[-2:]
        mixed = self.enter[0](features[0])
        for enter, feature in zip(self.enter[1:], features[1:], strict=True):
            mixed = mixed + F.interpolate(enter(feature), size, mode="bilinear")
        return F.normalize(self.leave(F.relu(self.norm(mixed))).float(), dim=1)


def check_width(width: int, dim: int, term: str) -> None:
    """Refuse a width that the norm of a projection head cannot divide into its 8 groups.

    Raises:
        PipaError: The width is not a multiple of 8, or below 8, or `dim` is below 1.
    """
    if width < 8 or width % 8:
        raise PipaError(f"is {width}, not a multiple of 8", f"--{term}.width")
    at_least(1, dim, f"{term}.dim")


def projection_for(features: list[Tensor], width: int, dim: int) -> Projection:
    """Build a head for these maps, if a term is used without `prepare`."""
    head = Projection([feature.shape[1] for feature in features], width, dim)
    return head.to(features[0].device)


def at_centres(plane: Shaped[Tensor, "b H W"], grid: tuple[int, int]) -> Shaped[Tensor, "b h w"]:
    """Return the pixel at the centre of each cell of a grid over the plane (nearest neighbour)."""
    rows, columns = (
        (torch.arange(count, device=plane.device) * 2 + 1) * size // (2 * count)
        for count, size in zip(grid, plane.shape[-2:], strict=True)
    )
    return plane[:, rows[:, None], columns]
