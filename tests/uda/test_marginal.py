"""Pseudo-labels that spare the classes which they do not name (`method.marginal`)."""

import copy

import pytest
import torch
from torch.nn import functional as F

import pipa
from pipa.batch import Labelled
from pipa.classes import LabelSpace
from pipa.losses.cross_entropy import cross_entropy
from pipa.uda.mixing import mix_images
from pipa.uda.pseudo import unnamed_classes
from pipa.uda.self_training import SelfTraining
from pipa.uda.teacher import Teacher
from pipa.uda.terms import Given, MaskedConsistency, PairCrossEntropy
from uda.steps import LABELS, Feed, batch_of, fit, small
from uda.terms.known import Window, flat, pair_batch


def test_a_spared_class_counts_as_the_label_and_255_counts_nothing():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 4, 6, generator=generator, dtype=torch.float64)
    label = torch.randint(5, (2, 4, 6), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.3] = 255
    weight = torch.rand(label.shape, generator=generator, dtype=torch.float64)
    spared = torch.rand(logits.shape, generator=generator) < 0.4
    total = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(6):
                if label[b, y, x] == 255:
                    continue
                p = logits[b, :, y, x].softmax(0)
                allowed = {label[b, y, x].item(), *spared[b, :, y, x].nonzero()[:, 0].tolist()}
                total -= weight[b, y, x].item() * sum(p[c] for c in allowed).log().item()
    assert cross_entropy(logits, label, weight, spared).item() == pytest.approx(total / 48)


@pytest.mark.parametrize("classes", [2, 11, 19])
def test_nothing_spared_is_plain_cross_entropy_and_all_spared_is_nothing(classes):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, classes, 8, 8, generator=generator, dtype=torch.float64)
    label = torch.randint(classes, (2, 8, 8), generator=generator)
    none = torch.zeros(logits.shape, dtype=torch.bool)
    plain = cross_entropy(logits, label).item()
    assert cross_entropy(logits, label, spared=none).item() == pytest.approx(plain)
    assert cross_entropy(logits, label, spared=~none).item() == pytest.approx(0)


@pytest.mark.parametrize("classes", [2, 11, 19])
def test_the_teacher_spares_what_no_counting_pixel_of_an_image_is(classes):
    generator = torch.Generator().manual_seed(2)
    label = torch.randint(classes, (3, 4, 5), generator=generator)
    weight = (torch.rand(3, 4, 5, generator=generator) < 0.3).float()
    found = unnamed_classes(label, weight, classes)
    for b in range(3):
        named = set(label[b][weight[b] > 0].tolist())
        assert set(found[b].nonzero()[:, 0].tolist()) == set(range(classes)) - named


class Kept(Window):
    """It keeps the logits of its last pass."""

    def context(self, image):
        view = super().context(image)
        self.logits = view.features[0]
        return view


def test_no_loss_of_the_pseudo_labels_pushes_an_unnamed_class_down():
    batch = pair_batch((48, 40), (8, -16), (False, True))
    pseudo = flat(torch.zeros(1, 48, 40, dtype=torch.long), 1.0)
    pseudo.pair = (flat(pseudo.label, 1.0), flat(pseudo.label, 1.0))
    for labels in (pseudo, *pseudo.pair):
        labels.unnamed = torch.tensor([[False, False, True]])
    given = Given(Kept(), batch, pseudo, torch.Generator().manual_seed(0))
    for term in (PairCrossEntropy(), MaskedConsistency(block=8)):
        (gradient,) = torch.autograd.grad(term(given), given.student.logits)
        assert (gradient[:, 2] <= 0).all()
        assert (gradient[:, 1] > 0).any()


def test_mixed_images_spare_on_the_target_and_not_on_the_source():
    batch = pair_batch((48, 40), (8, -16), (False, True))
    pseudo = flat(torch.zeros(1, 48, 40, dtype=torch.long), 1.0)
    pseudo.unnamed = torch.tensor([[False, False, True]])
    source = Labelled(batch.source.image, batch.source.label + 1)
    mixed = mix_images(source, batch.target, pseudo, mix="rectangle")
    method = SelfTraining(Kept(), LABELS, marginal=True)
    loss = method.mixed_losses(method.student.analyse(mixed.image), mixed, 0)["mixed"]
    (gradient,) = torch.autograd.grad(loss, method.student.logits)
    on_source = (mixed.label == 1).float()[:, None]
    inside = F.avg_pool2d(F.pad(on_source, (4,) * 4), 12, 4)[:, 0]  # 1: far from the target
    assert (gradient[:, 2][inside == 1] > 0).all()  # ground truth knows that it is not there
    assert (gradient[:, 2][inside == 0] <= 0).all()
    assert (inside == 1).any()
    assert (inside == 0).any()
    assert torch.equal(mixed.spared, pseudo.spared & (on_source == 0))


def test_crops_inside_of_the_target_spare_what_the_whole_target_does_not_name():
    batch = batch_of()
    inside = batch.pair._replace(corner=torch.zeros(2, 2, 2, dtype=torch.long))
    teacher = Teacher(small(), marginal=True, pseudo_weight="balanced")
    pseudo = teacher.label(batch.target, inside)
    assert torch.equal(pseudo.unnamed, unnamed_classes(pseudo.label, pseudo.weight, 3))
    assert all(torch.equal(crop.unnamed, pseudo.unnamed) for crop in pseudo.pair)
    assert Teacher(small()).label(batch.target).spared is None


@pytest.mark.parametrize("classes", [2, 11, 19])
def test_a_step_of_hrda_spares_too(classes):
    torch.manual_seed(0)
    student = pipa.create_segmenter("hrda_small", classes, head={"width": 16}, detail=32)
    names = tuple(f"c{i}" for i in range(classes))
    losses = []
    for marginal in (False, True):
        method = SelfTraining(
            copy.deepcopy(student),
            LabelSpace(names, ((0, 0, 0),) * classes),
            marginal=marginal,
            pseudo_weight="balanced",
            mix="rectangle",
        )
        fit(method, Feed([batch_of(side=64, classes=2)]))
        losses.append(method.losses["mixed"].item())
    if method.last_step.pseudo.unnamed.any():
        assert losses[1] < losses[0]
    else:
        assert losses[1] == pytest.approx(losses[0])
