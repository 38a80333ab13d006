"""A plain vision transformer gets as many patches as the image has cells of 16 pixels."""

import pytest
import torch
from transformers import Dinov2Backbone, Dinov2Config

from pipa.models.auto import Plain


@pytest.mark.parametrize("patch", [8, 14, 16])
def test_a_patch_covers_16_pixels_whatever_its_size(patch):
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, patch_size=patch, image_size=224
    )
    seen = []
    backbone = Plain(Dinov2Backbone(config), width=8)
    backbone.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    ramp = (torch.arange(96) + 0.5) / 96  # from 0 to 1 over the width, at the pixels' centres
    backbone(ramp.expand(1, 3, 64, 96))
    (shown,) = seen
    assert shown.shape == (1, 3, 4 * patch, 6 * patch)
    expected = (torch.arange(6 * patch) + 0.5) / (6 * patch)
    # all of the image, and not a piece of it
    torch.testing.assert_close(shown[0, 0, 0, 2:-2], expected[2:-2], atol=2e-3, rtol=0)
