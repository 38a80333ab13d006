"""Both losses against the definition of cross entropy, and the layers of the discriminator."""

import math

import pytest
import torch
from torch import nn

from pipa.losses.adversarial import domain_cross_entropy, probability
from pipa.models.discriminator import Discriminator


@pytest.mark.parametrize("source", [True, False])
def test_it_is_the_cross_entropy_with_one_domain(source):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64)
    total = 0.0
    for z in logits.flatten().tolist():
        target = 1 / (1 + math.exp(-z))  # label 1
        total -= math.log(1 - target if source else target)
    found = domain_cross_entropy(logits, source=source)
    assert found.item() == pytest.approx(total / 24, abs=1e-10)
    theirs = nn.BCEWithLogitsLoss()(logits, torch.full_like(logits, 0.0 if source else 1.0))
    assert found.item() == pytest.approx(theirs.item(), abs=1e-12)


@pytest.mark.parametrize("source", [True, False])
def test_values_and_gradients_by_hand(source):
    sign = 1 if source else -1
    for z, loss, slope in ((0.0, math.log(2), 0.5), (math.log(3), math.log(4), 0.75)):
        logits = torch.full((1, 1, 2, 2), sign * z, requires_grad=True)
        found = domain_cross_entropy(logits, source=source)
        found.backward()
        assert found.item() == pytest.approx(loss)
        assert logits.grad.sum().item() == pytest.approx(sign * slope)
    for z, loss in ((-500.0, 0.0), (500.0, 500.0)):  # no overflow
        assert (
            domain_cross_entropy(torch.full((1, 1, 1, 1), sign * z), source=source).item() == loss
        )


def test_half_precision_is_judged_in_float32():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, shown = domain_cross_entropy(logits[:, :1], source=True), probability(logits)
    assert loss.dtype == shown.dtype == torch.float32
    assert loss.item() == pytest.approx(
        domain_cross_entropy(logits[:, :1].double(), source=True).item()
    )
    torch.testing.assert_close(shown.sum(1), torch.ones(2, 4, 4))


def test_the_discriminator_is_that_of_the_papers():
    """4 x 4 convolutions with 64, 128, 256, 512, 1 channels: 2 781 121 numbers for 19 classes."""
    judge = Discriminator(19)
    shapes = [tuple(p.shape) for p in judge.parameters() if p.ndim == 4]
    channels = [(64, 19), (128, 64), (256, 128), (512, 256), (1, 512)]
    assert shapes == [(*pair, 4, 4) for pair in channels]
    expected = sum(16 * out * into + out for out, into in channels)
    assert sum(p.numel() for p in judge.parameters()) == expected == 2_781_121
    slopes = [m.negative_slope for m in judge.modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.2] * 4
    assert judge(torch.rand(1, 19, 64, 96)).shape == (1, 1, 2, 3)


def test_only_leaky_relu_bends():
    """One channel of positive weights: in proportion to what is positive, 0.2 ** 4 of the rest."""
    judge = Discriminator(1, width=1)
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.fill_(0.05 if parameter.ndim == 4 else 0)
    maps = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    found = judge(maps)
    assert (found > 0).all()
    torch.testing.assert_close(judge(3 * maps), 3 * found)
    torch.testing.assert_close(judge(-maps), -found * 0.2**4)


@pytest.mark.parametrize("size", [(1, 1), (8, 40), (31, 31), (33, 47)])
def test_a_map_of_any_size_is_judged(size):
    judge = Discriminator(3, width=4)
    maps = torch.rand(2, 3, *size, requires_grad=True)
    answer = judge(maps)
    answer.sum().backward()
    assert answer.shape == (2, 1, max(1, size[0] // 32), max(1, size[1] // 32))
    assert maps.grad.isfinite().all()
