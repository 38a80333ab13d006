"""The layout of a network changes its speed and nothing else."""

import copy

import pytest
import torch
from torch import nn

import pipa
from pipa.models.daformer import stacked
from pipa.models.layout import use_fast_layout

NAMES = {  # whether backbone and head gain from channels_last on a CPU
    "small": (True, True),
    "daformer_small": (True, True),
    "fpn_mobilenet_v2": (True, True),
    "segformer_mobilenet_v2": (True, False),
    "daformer_mit_b0": (False, True),
    "hrda_small": (True, True),
    "hrda_mit_b0": (False, True),
    "deeplabv2_small": (True, False),
}


def create(name):
    torch.manual_seed(0)
    head = {} if "deeplab" in name else {"width": 32}
    options = {"detail": 64} if "hrda" in name else {}
    return pipa.create_segmenter(name, 5, head=head, **options).double()


def image():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, 128, 128, generator=generator, dtype=torch.float64)


def is_channels_last(module):
    """Whether its first convolution that has both a window and several channels lies so."""
    weight = next(
        p for p in module.parameters() if p.ndim == 4 and p[0, 0].numel() > 1 < p.shape[1]
    )
    return weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_changes_neither_logits_nor_gradients(name):
    network = create(name).eval()
    other = copy.deepcopy(network)
    before = list(other.parameters())
    use_fast_layout(other)
    assert all(a is b for a, b in zip(before, other.parameters(), strict=True))
    for model in (network, other):
        model.generator = torch.Generator().manual_seed(2)
        sum(o.logits.square().mean() for o in model.analyse(image()).outputs).backward()
    torch.testing.assert_close(other(image()), network(image()), rtol=0, atol=1e-10)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_each_part_has_the_layout_that_is_fast_on_a_cpu(name):
    network = create(name)
    backbone, head = NAMES[name]
    use_fast_layout(network)
    assert is_channels_last(network.backbone) == backbone
    if "segformer" not in name:  # all of its convolutions are 1x1
        assert is_channels_last(network.head) == head
    use_fast_layout(network, "cuda")
    assert is_channels_last(network.backbone)


def test_the_stack_of_daformer_is_channels_last_whatever_the_backbone_is():
    network = create("daformer_mit_b0")
    use_fast_layout(network)
    seen = []
    network.head.fuse.branches[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.backbone.register_forward_hook(
        lambda _, given, maps: [one.contiguous() for one in maps]
    )
    network.analyse(image())
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_a_map_in_float32_does_not_make_the_stack_float32():
    """On CUDA autocast interpolates in float32 what a convolution answered in half precision."""
    embed = nn.ModuleList([nn.Conv2d(3, 4, 1).bfloat16(), nn.Conv2d(3, 4, 1)])
    maps = [torch.rand(1, 3, 8, 8).bfloat16(), torch.rand(1, 3, 4, 4)]
    assert stacked(embed, maps).dtype == torch.bfloat16
