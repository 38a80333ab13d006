"""The softmax of both contrasts against its definition in plain Python."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from pipa.losses.info_nce import info_nce, negative_mass, scaled_similarity, self_similarity


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(5, 3, generator=generator, dtype=torch.float64) * 8
    negative = torch.randn(5, 7, generator=generator, dtype=torch.float64) * 8
    is_negative = torch.rand(5, 7, generator=generator) < 0.5
    is_negative[2] = False
    return positive, negative, is_negative


def test_it_is_the_formula_of_the_docstring(logits):
    positive, negative, is_negative = logits
    loss = info_nce(positive, negative_mass(negative, ~is_negative))
    for i in range(5):
        others = sum(math.exp(negative[i, m]) for m in range(7) if is_negative[i, m])
        for p in range(3):
            good = math.exp(positive[i, p])
            assert loss[i, p].item() == pytest.approx(-math.log(good / (good + others)), abs=1e-10)


def test_its_gradient_is_that_of_the_formula(logits):
    positive, negative, is_negative = logits
    assert gradcheck(
        lambda p, n: info_nce(p, negative_mass(n, ~is_negative)),
        (positive.requires_grad_(), negative.requires_grad_()),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_negative_it_is_exactly_zero_with_a_finite_gradient(dtype):
    positive = torch.randn(4, 2, dtype=dtype, requires_grad=True)
    negative = torch.randn(4, 6, dtype=dtype, requires_grad=True)
    loss = info_nce(positive, negative_mass(negative, torch.ones(4, 6, dtype=torch.bool)))
    assert (loss == 0).all()
    loss.sum().backward()
    assert not positive.grad.any()
    assert not negative.grad.any()


def test_it_survives_temperatures_that_overflow_an_exponential():
    positive = torch.tensor([[-2000.0]], requires_grad=True)
    loss = info_nce(positive, torch.tensor([[2000.0]]))
    loss.sum().backward()
    assert loss.item() == 4000
    assert positive.grad.item() == -1


def test_similarities_keep_float32_under_autocast():
    rows = torch.nn.functional.normalize(torch.randn(16, 8), dim=1)
    exact = rows.double() @ rows.double().T / 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = scaled_similarity(rows, rows, 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)


def test_hidden_pairs_count_no_more_than_those_that_are_not_there(logits):
    rows, columns = torch.randn(5, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    hidden = ~logits[2]
    hidden[2, 0] = False
    plain = scaled_similarity(rows, columns, 0.1)
    expected = [row[~gone].logsumexp(0) for row, gone in zip(plain, hidden, strict=True)]
    for mass in (
        negative_mass(plain, hidden),
        scaled_similarity(rows, columns, 0.1, hidden).logsumexp(1, keepdim=True),
    ):
        torch.testing.assert_close(mass[:, 0], torch.stack(expected), rtol=1e-12, atol=1e-12)


def test_similarity_with_itself_and_its_gradient():
    rows = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(self_similarity(rows, 0.3), scaled_similarity(rows, rows, 0.3))
    assert gradcheck(lambda r: self_similarity(r, 0.3), (rows,))
