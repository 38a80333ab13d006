"""`L_Pixel` with a bank: its definition in plain loops, its gradients, and the bank's rows."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck
from torch.nn import functional as F

from pipa.losses.pixel_contrast import contrast_anchors, first_of_each

LABEL = torch.tensor([0, 0, 0, 0, 1, 1, 1, 255, 2, 3, 3, 3, 3, 4])
VALID = torch.arange(14) != 5
BANK_LABEL = torch.tensor([0, 0, 1, 1, 255, 255, 2, 2, 5, 5, 3])


def unit_rows(n: int, d: int = 6, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)


def plain(rows, label, valid, bank, bank_label, temperature, similarity) -> float:
    """The definition: loops, float64, no masks."""
    anchors = [i for i in range(len(rows)) if valid[i] and label[i] != 255]
    pool = [(rows[i].tolist(), int(label[i]), i) for i in anchors]
    pool += [
        (row.tolist(), int(c), None) for row, c in zip(bank, bank_label, strict=True) if c != 255
    ]
    losses = []
    for i in anchors:
        row = rows[i].tolist()

        def s(other, row=row):
            return sum(a * b for a, b in zip(row, other, strict=True)) / temperature

        positives = sorted(s(r) for r, c, j in pool if c == label[i] and j != i)
        negatives = sorted((s(r) for r, c, _ in pool if c != label[i]), reverse=True)
        if similarity is not None:
            positives = positives[: math.ceil(round(similarity * len(positives), 3))]
            negatives = negatives[: math.ceil(round(similarity * len(negatives), 3))]
        if positives:
            mass = sum(math.exp(k) for k in negatives)
            pairs = [-math.log(math.exp(j) / (math.exp(j) + mass)) for j in positives]
            losses.append(sum(pairs) / len(pairs))
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("similarity", [None, 0.1, 0.34, 1.0])
def test_it_is_the_definition(similarity):
    """The share of pairs that count is taken of anchors and bank together."""
    rows, bank = unit_rows(14), unit_rows(11, seed=1)
    found = contrast_anchors(
        rows,
        LABEL,
        VALID,
        bank=bank,
        bank_label=BANK_LABEL,
        temperature=0.2,
        similarity=similarity,
    )
    expected = plain(rows, LABEL, VALID, bank, BANK_LABEL, 0.2, similarity)
    assert found.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("similarity", [None, 0.34])
def test_anchors_are_moved_and_the_bank_is_not(similarity):
    rows, bank = unit_rows(14).requires_grad_(), unit_rows(11, seed=1).requires_grad_()

    def loss(rows):
        return contrast_anchors(
            rows, LABEL, VALID, bank=bank, bank_label=BANK_LABEL, similarity=similarity
        )

    assert gradcheck(loss, (rows,))
    loss(rows).backward()
    assert bank.grad is None
    assert rows.grad.any()
    assert not rows.grad[~VALID | (LABEL == 255)].any()


def test_a_bank_alone_can_be_all_that_an_anchor_is_contrasted_with():
    rows, bank = unit_rows(2), unit_rows(2, seed=1)
    alone, valid = torch.tensor([0, 1]), torch.ones(2, dtype=torch.bool)
    assert contrast_anchors(rows, alone, valid).item() == 0  # no two of a class
    assert contrast_anchors(rows, alone, valid, bank=bank, bank_label=alone) > 0
    one = torch.zeros(2, dtype=torch.long)
    assert contrast_anchors(rows, one, valid).item() == 0  # one class
    assert contrast_anchors(rows, one, valid, bank=bank, bank_label=one).item() == 0
    assert contrast_anchors(rows, one, valid, bank=bank, bank_label=one + 1) > 0


def test_no_anchor_is_exactly_zero_with_a_gradient_of_zero():
    rows = unit_rows(14).float().requires_grad_()
    loss = contrast_anchors(
        rows, LABEL, VALID & False, bank=unit_rows(11, seed=1), bank_label=BANK_LABEL
    )
    loss.backward()
    assert loss.item() == 0
    assert loss.dtype == torch.float32
    assert not rows.grad.any()


def test_what_lies_in_free_places_of_the_bank_has_no_say():
    rows = unit_rows(14)
    without = contrast_anchors(rows, LABEL, VALID)
    free = torch.full((11,), 255)
    for bank in (torch.zeros(11, 6), unit_rows(11, seed=1)):
        found = contrast_anchors(rows, LABEL, VALID, bank=bank, bank_label=free)
        torch.testing.assert_close(found, without, rtol=1e-12, atol=0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**20), classes=st.integers(1, 5), count=st.integers(1, 6), n=st.just(9))
def test_the_first_of_each_class_are_kept_in_their_order(seed, classes, count, n):
    label = torch.randint(classes + 1, (n,), generator=torch.Generator().manual_seed(seed))
    label = label.where(label < classes, 255)
    rows, kept = first_of_each(torch.arange(n).float()[:, None], label, classes, count)
    assert kept.shape == (classes * count,)
    for c in range(classes):
        mine = slice(c * count, (c + 1) * count)
        wanted = [i for i in range(n) if label[i] == c][:count]
        assert kept[mine].tolist() == [c] * len(wanted) + [255] * (count - len(wanted))
        assert rows[mine, 0].tolist()[: len(wanted)] == wanted


def test_the_device_is_never_asked():
    """Tensors without values stop whatever reads one: `.item()`, `if`, `nonzero`."""
    with FakeTensorMode():
        rows, bank = torch.zeros(14, 6, requires_grad=True), torch.zeros(11, 6)
        label, free = torch.zeros(14, dtype=torch.long), torch.zeros(11, dtype=torch.long)
        for similarity in (None, 0.1):
            contrast_anchors(
                rows, label, label == 0, bank=bank, bank_label=free, similarity=similarity
            ).backward()
        first_of_each(torch.cat([rows, bank]), torch.cat([label, free]), 3, 4)
