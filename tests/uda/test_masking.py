"""MIC's block mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.uda.masking import block_mask


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
