"""Weights of pseudo-labels and the alignment of their shares, against plain loops in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.batch import Unlabelled
from pipa.errors import PipaError
from pipa.uda.pseudo import class_medians, pseudo_label
from pipa.uda.teacher import ShareAlignment, Teacher
from uda.steps import CLASSES, small


def draw(seed, k, *, b=2, h=6, w=5, invalid=0.3):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, k, h, w, generator=generator, dtype=torch.float64) * 3
    if k > 2:
        logits[:, k // 2] -= 100  # a class that is never predicted
    valid = torch.rand(b, h, w, generator=generator) >= invalid
    return logits.float(), valid


def rows(pseudo, valid):
    """Class, confidence, weight and validity of each pixel."""
    flat = [pseudo.label, pseudo.confidence, pseudo.weight, valid]
    return list(zip(*(x.flatten().tolist() for x in flat), strict=True))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    k=st.sampled_from([2, 11, 19]),
    threshold=st.sampled_from([0.3, 0.7, 0.968]),
    invalid=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_balanced_takes_the_surer_half_of_each_class_and_what_is_sure(seed, k, threshold, invalid):
    logits, valid = draw(seed, k, invalid=invalid)
    pseudo = pseudo_label(logits, valid, threshold, pseudo_weight="balanced")
    pixels = rows(pseudo, valid)
    for label, confidence, weight, is_valid in pixels:
        mates = sorted((c for k, c, _, v in pixels if v and k == label), reverse=True)
        half = bool(mates) and confidence >= mates[math.ceil(len(mates) / 2) - 1]
        assert weight == float(is_valid and (half or confidence >= threshold))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), k=st.sampled_from([2, 11, 19]))
def test_balanced_knows_no_order_of_pixels_or_classes(seed, k):
    logits, valid = draw(seed, k)
    generator = torch.Generator().manual_seed(seed)
    weight = pseudo_label(logits, valid, pseudo_weight="balanced").weight
    place = torch.randperm(30, generator=generator)
    classes = torch.randperm(k, generator=generator)
    other = pseudo_label(
        logits[:, classes].flatten(2)[..., place].view_as(logits),
        valid.flatten(1)[:, place].view_as(valid),
        pseudo_weight="balanced",
    )
    assert torch.equal(other.weight, weight.flatten(1)[:, place].view_as(weight))


def test_balanced_counts_a_class_that_is_never_sure():
    """With one weight for all pixels, a class of sure pixels would decide alone."""
    logits = torch.zeros(1, 2, 2, 4)
    logits[0, 0, 0] = torch.tensor([9.0, 9.0, 9.0, 9.0])
    logits[0, 1, 1] = torch.tensor([0.4, 0.3, 0.2, 0.1])
    valid = torch.ones(1, 2, 4, dtype=torch.bool)
    balanced = pseudo_label(logits, valid, pseudo_weight="balanced")
    sure = pseudo_label(logits, valid, pseudo_weight="confidence")
    assert balanced.weight[0].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert sure.weight[0].tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("k", [2, 11, 19])
def test_confidence_is_one_where_the_threshold_is_reached(k):
    logits, valid = draw(k, k)
    pseudo = pseudo_label(logits, valid, 0.8, pseudo_weight="confidence")
    assert 0 < pseudo.weight.sum() < valid.sum()
    for _, confidence, weight, is_valid in rows(pseudo, valid):
        assert weight == float(is_valid and confidence >= 0.8)


@pytest.mark.parametrize("name", ["share", "confidence", "balanced"])
def test_nothing_valid_weighs_nothing(name):
    logits, valid = draw(0, 5)
    pseudo = pseudo_label(logits, torch.zeros_like(valid), 0.1, pseudo_weight=name)
    assert not pseudo.weight.any()
    assert pseudo.weight.isfinite().all()


def test_the_only_pixel_of_a_class_is_its_surer_half():
    confidence = torch.tensor([[[0.9, 0.5, 0.7, 0.2]]])
    label = torch.tensor([[[0, 0, 0, 1]]])
    median = class_medians(confidence, label, torch.ones_like(label, dtype=torch.bool), 3)
    torch.testing.assert_close(median, torch.tensor([[[0.7, 0.7, 0.7, 0.2]]]))


def target_of(seed):
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    valid[0, :, :9] = False
    return Unlabelled(torch.rand(2, 3, 32, 32, generator=generator), valid)


def labels_of(seed):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES - 1, (2, 32, 32), generator=generator)  # the last never occurs
    label[:, :4] = 255
    return label


def test_the_default_is_the_papers():
    student = small()
    plain, target = Teacher(student), target_of(0)
    plain.observe(labels_of(0))
    asked = pseudo_label(plain.network(target.image), target.valid, 0.968)
    found = plain.label(target)
    assert torch.equal(found.weight, asked.weight)
    assert torch.equal(found.label, asked.label)
    assert [*plain.state_dict()] == [f"network.{name}" for name in student.state_dict()]


@pytest.mark.parametrize("exponent", [0.5, 1.0])
def test_alignment_is_the_formula_step_by_step(exponent):
    alignment = ShareAlignment(CLASSES, exponent=exponent, momentum=0.9)
    source, predicted = [0.0] * CLASSES, [0.0] * CLASSES
    for step in range(4):
        label = labels_of(step)
        logits, valid = draw(step, CLASSES)
        alignment.observe(label)
        found = alignment(logits, valid).double().softmax(dim=1)
        counts = [float((label == k).sum()) for k in range(CLASSES)]
        before = logits.double().softmax(dim=1)
        mass = [float(before[:, k][valid].sum()) for k in range(CLASSES)]
        source = [0.9 * s + c / sum(counts) for s, c in zip(source, counts, strict=True)]
        predicted = [0.9 * p + m / sum(mass) for p, m in zip(predicted, mass, strict=True)]
        shares = [
            (s / sum(source)) / (p / sum(predicted)) for s, p in zip(source, predicted, strict=True)
        ]
        factor = torch.tensor([min(max(r, 0.1), 10.0) ** exponent for r in shares]).double()
        expected = before * factor.view(1, -1, 1, 1)
        expected /= expected.sum(dim=1, keepdim=True)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_alignment_brings_the_shares_nearer_to_the_sources():
    logits, valid = draw(1, 5, h=40, w=40)
    label = torch.randint(2, (2, 40, 40), generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([0.5, 0.5, 0, 0, 0])
    distances = []
    for exponent in (0.0, 0.25, 1.0):
        aligned = logits
        if exponent:
            alignment = ShareAlignment(5, exponent=exponent)
            alignment.observe(label)
            aligned = alignment(logits, valid)
        shares = aligned.softmax(dim=1).mean(dim=(0, 2, 3))
        distances.append((shares - wanted).abs().sum().item())
    assert distances[0] > distances[1] > distances[2]


def test_a_rare_class_that_the_source_lacks_is_pulled_down():
    """Its ratio is 0, clipped to a tenth, however small its predicted share is."""
    logits = torch.tensor([8.0, 1.0]).view(1, 2, 1, 1)  # the share of the second is 0.001
    alignment = ShareAlignment(2, exponent=1.0)
    alignment.observe(torch.zeros(1, 4, 4, dtype=torch.long))
    found = alignment(logits, torch.ones(1, 1, 1, dtype=torch.bool)).softmax(1).flatten()
    before = logits.softmax(1).flatten()
    assert (found[1] / found[0]).item() == pytest.approx(
        (before[1] / before[0]).item() / 10, rel=0.01
    )


def test_before_it_knows_a_share_alignment_changes_nothing():
    logits, valid = draw(0, 4)
    unseen = ShareAlignment(4, exponent=1.0)
    torch.testing.assert_close(unseen(logits, valid).softmax(1), logits.softmax(1))
    blind = ShareAlignment(4, exponent=1.0)
    blind.observe(torch.full((1, 2, 2), 255))  # no label at all
    blind.observe(torch.zeros(1, 2, 2, dtype=torch.long))
    torch.testing.assert_close(blind(logits, valid & False).softmax(1), logits.softmax(1))


def test_the_shares_go_on_from_a_checkpoint():
    def step(teacher, seed):
        teacher.observe(labels_of(seed))
        return teacher.label(target_of(seed))

    first = Teacher(small(), align_shares=0.5, pseudo_weight="balanced")
    step(first, 0)
    second = Teacher(small(), align_shares=0.5, pseudo_weight="balanced")
    second.load_state_dict(first.state_dict())
    assert torch.equal(step(first, 1).confidence, step(second, 1).confidence)
    fresh = Teacher(small(), align_shares=0.5, pseudo_weight="balanced")
    assert not torch.equal(step(fresh, 1).confidence, step(first, 1).confidence)


@pytest.mark.parametrize("exponent", [-0.1, 1.5])
def test_an_exponent_outside_its_range_is_refused(exponent):
    with pytest.raises(PipaError, match=r"--method\.align_shares: is"):
        Teacher(small(), align_shares=exponent)
