"""The pixel term: which pixels are anchors, and what happens where none is."""

import pytest
import torch

from pipa.batch import Box, Labelled
from pipa.models.segmenter import Output, Prediction, View
from pipa.uda.terms import PixelTerm
from pipa.uda.terms.projection import at_centres
from uda.steps import CLASSES, batch_of, small
from uda.terms.known import Direction


@pytest.mark.parametrize("label", [255, 1])
def test_no_two_classes_to_contrast_is_zero_with_a_finite_gradient(label):
    student, batch = small(), batch_of()
    source = Labelled(batch.source.image, torch.full((2, 32, 32), label))
    term = PixelTerm(width=16, dim=8)
    loss = term(student.analyse(source.image), source)
    loss.backward()
    assert loss.item() == 0
    for parameter in [*student.backbone.parameters(), *term.head.parameters()]:
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_pixels_without_a_label_are_no_anchors():
    """What the network says of them gets no gradient."""
    view = View([torch.rand(1, 3, 8, 8, requires_grad=True)], Box(slice(0, 32), slice(0, 32)))
    logits = torch.randn(1, CLASSES, 8, 8)
    prediction = Prediction([Output(logits, view.box, 1.0)], view, view)
    label = torch.arange(8).view(1, 8, 1).expand(1, 8, 8) % 3
    label = label.repeat_interleave(4, 1).repeat_interleave(4, 2).clone()
    label[:, 8:20, 4:28] = 255
    term = PixelTerm()
    term.head = Direction()
    term(prediction, Labelled(torch.zeros(1, 3, 32, 32), label)).backward()
    touched = view.features[0].grad.abs().sum(1)[0] > 0
    assert torch.equal(touched, at_centres(label, (8, 8))[0] != 255)
