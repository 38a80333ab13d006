"""Pixel-weighted cross entropy against its definition in plain loops."""

import math

import pytest
import torch

from pipa.losses.cross_entropy import cross_entropy


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    label = torch.randint(4, (2, 3, 5), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.3] = 255
    return logits, label, torch.rand(label.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_a_sum_over_known_pixels_and_a_mean_over_all(example, weighted):
    logits, label, weight = example
    total = 0.0
    for b in range(2):
        for y in range(3):
            for x in range(5):
                if label[b, y, x] != 255:
                    one = logits[b, :, y, x].exp()
                    loss = -math.log(one[label[b, y, x]] / one.sum())
                    total += loss * (weight[b, y, x].item() if weighted else 1)
    found = cross_entropy(logits, label, weight if weighted else None)
    assert found.item() == pytest.approx(total / 30, abs=1e-10)


@pytest.mark.parametrize("nothing", ["label", "weight"])
def test_nothing_to_learn_is_exactly_zero_with_a_gradient(example, nothing):
    logits, label, weight = example
    logits.requires_grad_()
    if nothing == "label":
        loss = cross_entropy(logits, torch.full_like(label, 255))
    else:
        loss = cross_entropy(logits, label, torch.zeros_like(weight))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_half_precision_logits_are_judged_in_float32(example):
    logits, label, _ = example
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(logits.bfloat16(), label)
    assert loss.dtype == torch.float32
    exact = cross_entropy(logits.bfloat16().double(), label)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
