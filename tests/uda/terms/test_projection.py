"""Projection heads at chosen places, and labels on their grid."""

import pytest
import torch
from torch.nn import functional as F

from pipa.uda.terms.projection import Projection, at_centres


def test_the_pixel_at_the_centre_of_each_cell():
    plane = torch.arange(16).view(1, 16, 1) * 100 + torch.arange(24)
    expected = torch.tensor([2, 6, 10, 14])[:, None] * 100 + torch.tensor([2, 6, 10, 14, 18, 22])
    assert torch.equal(at_centres(plane, (4, 6))[0], expected)
    assert torch.equal(at_centres(plane, (16, 24)), plane)
    assert at_centres(plane, (1, 1)).item() == 812


@pytest.mark.parametrize("sizes", [[(8, 12), (4, 6), (2, 3)], [(7, 9), (4, 5), (2, 2)]])
def test_projecting_places_is_upsampling_then_projecting_all(sizes):
    """In float64 against the textbook: upsample, stack, 1x1 convolutions, at each pixel."""
    generator = torch.Generator().manual_seed(0)
    channels = [3, 4, 5]
    maps = [
        torch.randn(2, c, *size, generator=generator, dtype=torch.float64)
        for c, size in zip(channels, sizes, strict=True)
    ]
    head = Projection(channels, 6, 4).double()
    stack = [F.interpolate(m, sizes[0], mode="bilinear") for m in maps]
    enter = torch.cat([layer.weight for layer in head.enter], dim=1)
    mixed = torch.einsum("wc,bchv->bhvw", enter, torch.cat(stack, dim=1))
    wanted = F.normalize(head.leave(head.norm(mixed).relu()), dim=3).flatten(0, 2)
    place = torch.randperm(len(wanted), generator=generator)
    torch.testing.assert_close(head(maps, place).double(), wanted[place], rtol=0, atol=1e-6)
    few = head(maps, place[:5])  # whatever else is chosen
    torch.testing.assert_close(few.double(), wanted[place[:5]], rtol=0, atol=1e-6)
