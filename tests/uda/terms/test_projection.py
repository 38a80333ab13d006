"""Labels on the grid of a projection head."""

import torch

from pipa.uda.terms.projection import at_centres


def test_the_pixel_at_the_centre_of_each_cell():
    plane = torch.arange(16).view(1, 16, 1) * 100 + torch.arange(24)
    expected = torch.tensor([2, 6, 10, 14])[:, None] * 100 + torch.tensor([2, 6, 10, 14, 18, 22])
    assert torch.equal(at_centres(plane, (4, 6))[0], expected)
    assert torch.equal(at_centres(plane, (16, 24)), plane)
    assert at_centres(plane, (1, 1)).item() == 812
