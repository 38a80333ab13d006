"""DAFormer's feature distance and the labels of its cells: the authors' numbers, plain loops.

Reference numbers: golden/dacs_parts, cut by golden/trim_losses.py.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe import golden, image, labels

from pipa.losses.feature_distance import downscale_label, feature_distance

ARRAYS, META = golden("dacs_parts")
THINGS = torch.tensor([6, 7, 11, 12, 13, 14, 15, 16, 17, 18])  # DAFormer's thing classes


def test_value_and_gradient_as_the_authors_have_them():
    feature = torch.from_numpy(ARRAYS["fd/f1"]).requires_grad_()
    reference = torch.from_numpy(ARRAYS["fd/f2"])
    mask = torch.from_numpy(ARRAYS["fd/mask"])[:, 0].bool()
    loss = feature_distance(feature, reference, mask)
    loss.backward()
    assert loss.item() == pytest.approx(META["fd"]["value"], rel=1e-5)
    torch.testing.assert_close(
        feature.grad, torch.from_numpy(ARRAYS["fd/grad"]), rtol=1e-5, atol=1e-7
    )
    everywhere = feature_distance(feature, reference)
    assert everywhere.item() == pytest.approx(META["fd"]["value_nomask"], rel=1e-5)


def test_the_whole_term_as_the_authors_have_it():
    feature = torch.from_numpy(image("open/fd/src", (2, 16, 4, 6)))
    reference = torch.from_numpy(image("open/fd/imnet", (2, 16, 4, 6)))
    label = torch.from_numpy(labels("open/fd/gt", 2, 4, 6, 32, n=19, p_ignore=0.1))
    mask = torch.isin(downscale_label(label, 32, 19), THINGS)
    expected = META["fd"]["calc_feat_dist"]
    assert mask.sum() == expected["n_mask"]
    loss = 0.005 * feature_distance(feature, reference, mask)
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize("nothing", ["mask", "difference"])
def test_nothing_to_measure_is_exactly_zero_with_a_finite_gradient(nothing):
    feature = torch.randn(2, 3, 4, 4).requires_grad_()
    mask = torch.full((2, 4, 4), nothing != "mask")
    reference = feature.detach() if nothing == "difference" else torch.randn(2, 3, 4, 4)
    loss = feature_distance(feature, reference, mask)
    loss.backward()
    assert loss.item() == 0
    assert not feature.grad.any()


@pytest.mark.parametrize("case", [0, 1, 2])
def test_labels_of_cells_as_the_authors_have_them(case):
    info = META["downscale_label_ratio"][case]
    h, w, block = info["H"], info["W"], info["block"]
    label = labels(
        f"open/ratio/{case}", info["B"], h // block, w // block, block, info["n"], info["p_ign"]
    )
    label[:, : h // 2, : w // 2] = 13
    label[:, : h // 4, : w // 4] = 255
    found = downscale_label(torch.from_numpy(label), info["scale"], 19, info["min_ratio"])
    assert torch.equal(found, torch.from_numpy(ARRAYS[f"ratio/{case}/out"])[:, 0].long())
    assert (found != 255).sum() == info["n_valid"]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    scale=st.integers(1, 4),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    min_ratio=st.sampled_from([0.51, 0.75, 1.0]),
)
def test_a_cell_has_the_class_that_covers_enough_of_it(seed, scale, size, min_ratio):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(3, (2, *size), generator=generator)
    label[label == 2] = 255
    found = downscale_label(label, scale, 2, min_ratio)
    assert found.shape == (2, size[0] // scale, size[1] // scale)
    for b, y, x in torch.cartesian_prod(*(torch.arange(n) for n in found.shape)).tolist():
        cell = label[b, y * scale : (y + 1) * scale, x * scale : (x + 1) * scale]
        share = {c: (cell == c).float().mean().item() for c in (0, 1)}
        expected = [c for c in share if share[c] >= min_ratio] or [255]
        assert found[b, y, x] == expected[0]
