"""The softmax of both contrasts against its definition in plain Python."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from pipa.losses.info_nce import info_nce, scaled_similarity


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
    loss = info_nce(positive, negative, is_negative)
    for i in range(5):
        others = sum(math.exp(negative[i, m]) for m in range(7) if is_negative[i, m])
        for p in range(3):
            good = math.exp(positive[i, p])
            assert loss[i, p].item() == pytest.approx(-math.log(good / (good + others)), abs=1e-10)


def test_its_gradient_is_that_of_the_formula(logits):
    positive, negative, is_negative = logits
    assert gradcheck(
        lambda p, n: info_nce(p, n, is_negative),
        (positive.requires_grad_(), negative.requires_grad_()),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_negative_it_is_exactly_zero_with_a_finite_gradient(dtype):
    positive = torch.randn(4, 2, dtype=dtype, requires_grad=True)
    negative = torch.randn(4, 6, dtype=dtype, requires_grad=True)
    loss = info_nce(positive, negative, torch.zeros(4, 6, dtype=torch.bool))
    assert (loss == 0).all()
    loss.sum().backward()
    assert not positive.grad.any()
    assert not negative.grad.any()


def test_it_survives_temperatures_that_overflow_an_exponential():
    positive = torch.tensor([[-2000.0]], requires_grad=True)
    loss = info_nce(positive, torch.tensor([[2000.0]]), torch.tensor([[True]]))
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
