"""The common parts of all terms: weight over time, float32, no waiting for the device."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F

from pipa.batch import Box
from pipa.errors import PipaError
from pipa.models.segmenter import Output, Prediction, View
from pipa.uda.mixing import mix_images
from pipa.uda.teacher import Teacher
from pipa.uda.terms import FeatureDistance, Given, PatchTerm, PixelTerm
from pipa.uda.terms.base import SourceTerm, supervised
from uda.steps import CLASSES, batch_of, small
from uda.terms.known import flat, plain


def test_the_weight_starts_late_and_warms_up():
    term = PatchTerm(weight=0.4, start=3, warm_up=4)
    expected = [0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.4]
    assert [term.weight_at(step) for step in range(8)] == pytest.approx(expected)
    assert [PixelTerm(weight=0.1).weight_at(step) for step in (0, 1, 9)] == [0.1] * 3
    assert PixelTerm(weight=0.1, start=5).weight_at(4) == 0


def test_a_weight_that_decays_ends_at_0():
    term = PatchTerm(weight=0.4, start=2, warm_up=2, decay=4)
    expected = [0, 0, 0.2, 0.4, 0.3, 0.2, 0.1, 0, 0]
    assert [term.weight_at(step) for step in range(9)] == pytest.approx(expected)
    at_once = PixelTerm(weight=0.4, decay=4)
    assert [at_once.weight_at(step) for step in range(5)] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0])


def test_outputs_are_supervised_in_their_boxes_by_their_share():
    logits = torch.randn(1, CLASSES, 4, 4, generator=torch.Generator().manual_seed(0))
    whole, part = Box(slice(0, 16), slice(0, 16)), Box(slice(4, 12), slice(8, 16))
    outputs = [Output(logits, whole, 0.9), Output(logits[..., :2, :2], part, 0.1)]
    view = View([], whole)
    label = torch.arange(16).view(1, 16, 1).expand(1, 16, 16) % 3
    weight = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for output in outputs:
        rows, columns = output.box
        size = (rows.stop - rows.start, columns.stop - columns.start)
        each = F.cross_entropy(
            F.interpolate(output.logits, size, mode="bilinear"),
            label[:, rows, columns],
            reduction="none",
        )
        expected += output.weight * (each * weight[:, rows, columns]).mean()
    found = supervised(Prediction(outputs, view, view), label, weight)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_losses_are_float32_under_autocast_and_near_those_without():
    student, batch = small(), batch_of()
    pixel, patch = PixelTerm(width=16, dim=8), PatchTerm(threshold=0.0, width=16, dim=8, memory=0)
    pixel.prepare(student)
    patch.prepare(student)
    label = (torch.arange(32) // 8 % 3).view(1, 1, 32).expand(2, 32, 32)
    whole = flat(label, 0.5)
    whole.pair = flat(label, 0.5), flat(label, 0.6)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            prediction = student.analyse(batch.source.image)
            losses = [
                supervised(prediction, batch.source.label),
                pixel(prediction, batch.source, torch.Generator().manual_seed(0)),
                patch(Given(student, batch, whole, torch.Generator().manual_seed(0))),
            ]
        assert all(loss.dtype == torch.float32 for loss in losses)
        found.append(torch.stack(losses))
    torch.testing.assert_close(found[0], found[1], rtol=0.02, atol=0.02)


def test_nothing_waits_for_the_device():
    """Nothing asks what a tensor holds: on a GPU that would stop the program at each step.

    Colours are left out: kornia's blur does ask whether every sigma is positive.
    """
    student, batch = small(), batch_of()
    teacher = Teacher(student)
    source_terms = [PixelTerm(), PixelTerm(similarity=0.1, sampling="random")]
    source_terms.append(FeatureDistance(classes=(0, 2)))
    patch = PatchTerm()
    for term in (*source_terms, patch):
        term.prepare(student)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for term in source_terms:
            term(student.analyse(batch.source.image), batch.source).backward()
        teacher.follow(student, 3)
        pseudo = teacher.label(batch.target, batch.pair)
        mixed = mix_images(batch.source, batch.target, pseudo)
        supervised(student.analyse(mixed.image), mixed.label, mixed.weight).backward()
        patch(plain(student, batch, pseudo)).backward()
        with pytest.raises(DataDependentOutputException):
            mixed.weight.sum().item()


def test_a_loss_without_a_name_is_refused():
    class Nameless(SourceTerm):
        def forward(self, prediction, source, generator=None):
            return prediction.outputs[0].logits.mean()

    with pytest.raises(PipaError, match=r"Nameless: has no name\. Write"):
        Nameless(1.0)


@pytest.mark.parametrize(
    ("term", "option", "value", "must"),
    [
        (PixelTerm, "anchors", 0, "must be at least 1"),
        (PixelTerm, "per_class", 0, "must be at least 1"),
        (PixelTerm, "temperature", 0.0, "must be above 0"),
        (PatchTerm, "temperature", -0.1, "must be above 0"),
        (PatchTerm, "threshold", 90.0, "must be from 0 to 1"),
    ],
)
def test_values_that_would_train_nothing_or_nonsense_are_refused(term, option, value, must):
    with pytest.raises(PipaError, match=rf"^--{term.name}\.{option}: is {value}, {must}"):
        term(**{option: value})
