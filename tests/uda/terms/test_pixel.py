"""The pixel term: which pixels are anchors, and what happens where none is."""

import pytest
import torch
from torch.nn import functional as F

from pipa.batch import Box, Labelled
from pipa.losses.pixel_contrast import contrast_anchors
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
    """The network's features there get no gradient."""
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


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_the_temperature_is_that_of_the_contrast(temperature):
    view = View([torch.rand(1, 3, 8, 8)], Box(slice(0, 32), slice(0, 32)))
    prediction = Prediction([Output(torch.randn(1, CLASSES, 8, 8), view.box, 1.0)], view, view)
    cells = torch.arange(64).view(1, 8, 8) % CLASSES
    label = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)
    term = PixelTerm(temperature=temperature)  # every cell is an anchor: fewer than 100 of a class
    term.head = Direction()
    found = term(prediction, Labelled(torch.zeros(1, 3, 32, 32), label))
    rows = term.head(view.features, torch.arange(64))
    every = torch.ones(64, dtype=torch.bool)
    expected = contrast_anchors(rows, cells.flatten(), every, temperature=temperature)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_hard_anchors_are_where_the_logits_of_the_detail_are_wrong(seed):
    """HRDA's fused logits err elsewhere in the same box: these cells are as easy as any."""
    box = Box(slice(16, 48), slice(8, 40))
    view = View([torch.rand(1, 3, 8, 8, requires_grad=True)], box)
    label = torch.zeros(1, 64, 64, dtype=torch.long)
    label[..., 24:] = 1  # half of the box is of class 0, half of class 1
    truth = F.one_hot(at_centres(label, (16, 16)), CLASSES).permute(0, 3, 1, 2).float()
    fused, fine = truth.clone(), truth[..., 4:12, 2:10].clone()
    wrong = torch.zeros(8, 8, dtype=torch.bool)
    wrong[::2, ::4] = True  # four cells of each class
    fine[..., wrong] = torch.tensor([0.0, 0.0, 1.0])[:, None]
    fused[..., 4:12, 2:10][..., ~wrong] = torch.tensor([0.0, 0.0, 1.0])[:, None]
    outputs = [Output(fused, Box(slice(0, 64), slice(0, 64)), 0.9), Output(fine, box, 0.1)]
    term = PixelTerm(per_class=8)
    term.head = Direction()
    source = Labelled(torch.zeros(1, 3, 64, 64), label)
    generator = torch.Generator().manual_seed(seed)
    term(Prediction(outputs, view, view), source, generator).backward()
    anchors = view.features[0].grad.abs().sum(1)[0] > 0
    assert anchors.sum() == 16
    assert anchors[wrong].all()
