"""The projection heads h_pixel and h_patch, at chosen places, and labels on their grid."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.errors import PipaError, at_least
from pipa.models.segmenter import Segmenter, View

Maps = Literal["encoder", "decoder"]
"""What is contrasted: the backbone's maps, as in the paper, or the map below the classifier."""


class Projection(nn.Module):
    """A head from the maps of a backbone to unit vectors: linear - norm - ReLU - linear.

    The release has 1x1 convolutions of the upsampled and concatenated maps
    (PiPa@encoder_decoder.py). Here the places are chosen first, and only these are projected: the
    sum of one linear layer per map, each applied to the map's bilinear value at the place. The norm
    looks at one place at a time, so it does not matter which others are chosen.

    Args:
        channels: Channels of each map.
        width: Numbers between the linear layers.
        dim: Length of a vector, d.
    """

    def __init__(self, channels: Sequence[int], width: int, dim: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Linear(c, width, bias=False) for c in channels)
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, dim)

    def forward(self, features: Sequence[Tensor], place: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """Embed places of one view.

        Args:
            features: The maps of the view, `b c_i h_i w_i`.
            place: Indices of places on the grid of the first map, flattened to `(b h w)`.
        """
        h, w = features[0].shape[-2:]
        mixed = sum(
            enter(at_places(feature, place, (h, w)))
            for enter, feature in zip(self.enter, features, strict=True)
        )
        return F.normalize(self.leave(F.relu(self.norm(mixed))).float(), dim=1)


def at_places(
    feature: Float[Tensor, "b c h w"], place: Int[Tensor, " n"], grid: tuple[int, int]
) -> Float[Tensor, "n c"]:
    """Return a map at places of a finer grid: bilinear, as if it were upsampled first.

    Args:
        feature: The map.
        place: Indices of places on the grid, flattened to (b, rows, columns).
        grid: Rows and columns of the grid, which covers the map (`align_corners=False`).
    """
    rows, columns = grid
    image, row, column = place // (rows * columns), place // columns % rows, place % columns
    if grid == tuple(feature.shape[-2:]):
        return feature[image, :, row, column]
    top, bottom, down = neighbours(row, rows, feature.shape[2])
    left, right, across = neighbours(column, columns, feature.shape[3])
    down, across = (part[:, None].to(feature.dtype) for part in (down, across))
    above = torch.lerp(feature[image, :, top, left], feature[image, :, top, right], across)
    below = torch.lerp(feature[image, :, bottom, left], feature[image, :, bottom, right], across)
    return torch.lerp(above, below, down)


def neighbours(
    place: Int[Tensor, " n"], fine: int, coarse: int
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the two cells of a coarse axis around cells of a fine one, and the second's share."""
    centre = ((place + 0.5) * (coarse / fine) - 0.5).clamp(min=0)
    first = centre.long().clamp(max=coarse - 1)
    return first, (first + 1).clamp(max=coarse - 1), centre - first


def channels_of(student: Segmenter, maps: Maps, term: str) -> list[int]:
    """Return the channels of the maps that a term contrasts.

    Raises:
        PipaError: The maps are the decoder's, and it has none.
    """
    if maps == "encoder":
        return list(student.backbone.channels)
    if student.fused_channels is None:
        raise PipaError(
            "this network's decoder has no map to contrast",
            f"--{term}.maps decoder",
            "Take encoder, or a network with the head fpn, daformer or segformer.",
        )
    return [student.fused_channels]


def maps_of(view: View, maps: Maps) -> list[Tensor]:
    """Return the maps of a view that a term contrasts."""
    if maps == "encoder":
        return view.features
    assert view.fused is not None, "`channels_of` has refused a decoder without a map"
    return [view.fused]


def check_width(width: int, dim: int, term: str) -> None:
    """Refuse sizes of a projection head below 1.

    Raises:
        PipaError: `width` or `dim` is below 1.
    """
    at_least(1, width, f"{term}.width")
    at_least(1, dim, f"{term}.dim")


def projection_for(features: Sequence[Tensor], width: int, dim: int) -> Projection:
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
