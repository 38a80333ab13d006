"""Dilated depthwise convolutions: those of PyTorch, but fast on a CPU."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipa.models.depthwise import DilatedDepthwise


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([2, 6, 18]),
    st.data(),
)
def test_values_and_gradients_are_those_of_pytorchs_convolution(b, h, w, dilation, data):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    layout = data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    ours = DilatedDepthwise(5, dilation).double()
    image = torch.randn(b, 5, h, w, dtype=torch.float64).contiguous(memory_format=layout)
    image.requires_grad_()
    found, expected = ours(image), nn.Conv2d.forward(ours, image)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(found)
    inputs = image, ours.weight
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, gradient),
        torch.autograd.grad(expected, inputs, gradient),
    )
