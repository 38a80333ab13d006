"""MIC's block mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.uda.augment import block_mask


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    block=st.integers(1, 16),
)
def test_a_block_is_whole_and_the_size_is_kept(seed, h, w, block):
    generator = torch.Generator().manual_seed(seed)
    mask = block_mask(2, h, w, block=block, ratio=0.5, generator=generator)
    assert mask.shape == (2, 1, h, w)
    for y in range(0, h, block):
        for x in range(0, w, block):
            cell = mask[:, 0, y : y + block, x : x + block].flatten(1)
            assert torch.equal(cell.all(dim=1), cell.any(dim=1))


def test_each_block_is_where_it_belongs():
    """5 x 7 pixels in blocks of 3: 2 x 3 draws, of which the last row and column are cut."""
    draws = torch.rand(2, 1, 2, 3, generator=torch.Generator().manual_seed(4))
    mask = block_mask(2, 5, 7, block=3, ratio=0.5, generator=torch.Generator().manual_seed(4))
    for b in range(2):
        for y in range(5):
            for x in range(7):
                assert mask[b, 0, y, x] == (draws[b, 0, y // 3, x // 3] >= 0.5)


def test_blocks_are_hidden_independently():
    """The number of hidden blocks is binomial: its mean and its variance, over 2000 images."""
    generator = torch.Generator().manual_seed(0)
    mask = block_mask(2000, 16, 16, block=4, ratio=0.7, generator=generator)
    hidden = (~mask[:, 0, ::4, ::4]).float().flatten(1)
    assert hidden.shape == (2000, 16)
    count = hidden.sum(dim=1)
    assert count.mean().item() == pytest.approx(16 * 0.7, abs=0.15)
    assert count.var().item() == pytest.approx(16 * 0.7 * 0.3, rel=0.15)
    assert (hidden.mean(dim=0) - 0.7).abs().max() < 0.05  # wherever the block lies


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.7, 1.0])
def test_so_many_blocks_are_hidden(ratio):
    generator = torch.Generator().manual_seed(0)
    mask = block_mask(4, 512, 512, block=8, ratio=ratio, generator=generator)
    assert mask.float().mean().item() == pytest.approx(1 - ratio, abs=0.02)
    if ratio in (0.0, 1.0):
        assert mask.float().mean() == 1 - ratio


def test_it_follows_from_the_generator():
    def draw(seed):
        return block_mask(1, 64, 64, block=4, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
