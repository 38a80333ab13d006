"""Entropy and weighted self-information against plain loops, and against values by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.losses.entropy import entropy, weighted_self_information


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log().view(1, -1, 1, 1)


@pytest.mark.parametrize("k", [2, 3, 19])
def test_it_is_the_sum_in_the_paper(k):
    generator = torch.Generator().manual_seed(k)
    logits = 3 * torch.randn(2, k, 3, 5, generator=generator, dtype=torch.float64)
    maps, whole = weighted_self_information(logits), entropy(logits)
    for b in range(2):
        for y in range(3):
            for x in range(5):
                one = [math.exp(z) for z in logits[b, :, y, x].tolist()]
                each = [z / sum(one) for z in one]
                parts = [-p * math.log2(p) / math.log2(k) for p in each]  # in bits, as the code
                assert maps[b, :, y, x].tolist() == pytest.approx(parts, abs=1e-10)
                assert whole[b, y, x].item() == pytest.approx(sum(parts), abs=1e-10)


def test_values_by_hand():
    assert entropy(logits_of(0.5, 0.5)).item() == pytest.approx(1)
    assert entropy(logits_of(0.5, 0.5, 1e-300)).item() == pytest.approx(math.log(2) / math.log(3))
    assert entropy(logits_of(0.5, 0.25, 0.125, 0.125)).item() == pytest.approx(1.75 / 2)  # bits
    maps = weighted_self_information(logits_of(0.5, 0.25, 0.125, 0.125)).flatten()
    assert maps.tolist() == pytest.approx([0.25, 0.25, 0.1875, 0.1875])


@pytest.mark.parametrize("k", [2, 7, 19])
@pytest.mark.parametrize("size", [0.0, 1e4])
def test_uniform_is_one_and_sure_is_zero_with_a_finite_gradient(k, size):
    logits = torch.zeros(1, k, 2, 2)
    logits[:, 0] = size
    logits.requires_grad_()
    found = entropy(logits)
    expected = torch.full((1, 2, 2), 1.0 if size == 0 else 0.0)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**20), k=st.integers(2, 9), size=st.floats(0, 50))
def test_it_is_in_the_unit_interval_and_knows_no_order_of_classes(seed, k, size):
    generator = torch.Generator().manual_seed(seed)
    logits = size * torch.randn(1, k, 2, 2, generator=generator, dtype=torch.float64)
    found = entropy(logits)
    assert (found >= 0).all()
    assert (found <= 1 + 1e-12).all()
    turned = entropy(logits[:, torch.randperm(k, generator=generator)] + 7)
    torch.testing.assert_close(turned, found, rtol=0, atol=1e-10)


def test_the_gradient_is_the_derivative():
    logits = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(entropy, logits)


def test_half_precision_logits_are_judged_in_float32():
    logits = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = entropy(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), entropy(logits.double()), rtol=1e-5, atol=1e-6)
