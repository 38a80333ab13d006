"""Windows cover, overlap and average."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.models.windows import average_windows, enlarge, tile


@settings(deadline=None)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), window=st.integers(1, 40), data=st.data()
)
def test_boxes_cover_the_image_and_stay_inside(height, width, window, data):
    stride = data.draw(st.integers(1, 2 * window))
    count = torch.zeros(height, width)
    for box in tile(height, width, window=window, stride=stride):
        assert 0 <= box.rows.start < box.rows.stop <= height
        assert 0 <= box.columns.start < box.columns.stop <= width
        assert box.rows.stop - box.rows.start == min(window, height)
        count[box] += 1
    assert count.min() >= 1


def test_the_boxes_of_hrda_on_cityscapes():
    boxes = tile(1024, 2048, window=1024, stride=512)
    assert [box.columns.start for box in boxes] == [0, 512, 1024]
    assert len(tile(1024, 1024, window=512, stride=256)) == 9


@pytest.mark.parametrize("chunk", [None, 1, 2, 5])
def test_the_mean_of_windows_by_hand(chunk):
    image = torch.arange(10.0, dtype=torch.float64).view(1, 1, 1, 10)
    seen = []

    def less_its_mean(crops):
        seen.append(len(crops))
        return crops - crops.mean(dim=(1, 2, 3), keepdim=True)

    found = average_windows(less_its_mean, image, window=4, stride=3, chunk=chunk)
    # windows 0-3, 3-6, 6-9 with means 1.5, 4.5, 7.5; columns 3 and 6 are in two
    expected = [-1.5, -0.5, 0.5, (1.5 - 1.5) / 2, -0.5, 0.5, (1.5 - 1.5) / 2, -0.5, 0.5, 1.5]
    torch.testing.assert_close(found.flatten().tolist(), expected)
    assert max(seen) == (chunk if chunk in (1, 2) else 3)


def test_each_image_of_a_batch_gets_its_own_windows():
    images = torch.rand(3, 2, 9, 14, generator=torch.Generator().manual_seed(0))
    whole = average_windows(lambda x: x * 2, images, window=5, stride=3, chunk=2)
    torch.testing.assert_close(whole, images * 2)


def test_windows_of_half_precision_are_summed_in_float32():
    """16 windows see the middle; a sum of 16 in bfloat16 would lose what a single one resolves."""
    image = torch.full((1, 1, 28, 28), 1 / 3)
    found = average_windows(lambda x: x.bfloat16(), image, window=16, stride=4)
    assert found.dtype == torch.float32
    one = torch.tensor(1 / 3).bfloat16().float()
    torch.testing.assert_close(found, one.expand_as(found), rtol=1e-6, atol=0)


def test_gradients_pass_through_windows():
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: average_windows(lambda y: y.sin(), x, window=4, stride=2, chunk=2), image
    )


def test_the_border_is_repeated():
    image = torch.arange(6.0).view(1, 1, 2, 3)
    grown = enlarge(image, minimum=3, multiple=4)
    assert grown.shape == (1, 1, 4, 4)
    assert grown[0, 0, 3].tolist() == [3, 4, 5, 5]
    assert enlarge(image) is image
