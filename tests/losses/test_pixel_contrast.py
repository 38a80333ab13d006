"""`L_Pixel`: its definition in plain loops, the authors' numbers, and what it must not depend on.

Reference numbers: golden/pixel_contrast, cut by golden/trim_losses.py.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe import golden, image
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.autograd import gradcheck
from torch.nn import functional as F

from pipa.batch import IGNORE_INDEX
from pipa.losses import pixel_contrast
from pipa.losses.pixel_contrast import contrast_anchors, first_anchors, quotas, sample_anchors

ARRAYS, META = golden("pixel_contrast")


def unit_rows(n: int, d: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1).to(dtype)


def plain(rows, label, valid, temperature, similarity=None) -> float:
    """The definition: loops, float64, no masks."""
    rows, label, valid = rows.tolist(), label.tolist(), valid.tolist()
    alive = [i for i in range(len(rows)) if valid[i] and label[i] != 255]

    def s(i, j):
        return sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / temperature

    losses = []
    for i in alive:
        positives = [j for j in alive if j != i and label[j] == label[i]]
        negatives = [j for j in alive if label[j] != label[i]]
        if similarity is not None:
            positives.sort(key=lambda j: s(i, j))
            positives = positives[: math.ceil(round(similarity * len(positives), 3))]
            negatives.sort(key=lambda j: -s(i, j))
            negatives = negatives[: math.ceil(round(similarity * len(negatives), 3))]
        if positives:
            mass = sum(math.exp(s(i, k)) for k in negatives)
            pairs = [-math.log(math.exp(s(i, j)) / (math.exp(s(i, j)) + mass)) for j in positives]
            losses.append(sum(pairs) / len(pairs))
    return sum(losses) / max(1, len(losses))


@pytest.mark.parametrize("similarity", [None, 0.1, 0.34, 1.0])
def test_it_is_the_definition(similarity):
    label = torch.tensor([0, 0, 0, 0, 1, 1, 1, 255, 255, 2, 3, 3, 3, 3, 3, 3, 3, 3])
    rows, valid = unit_rows(len(label)), torch.ones(len(label), dtype=torch.bool)
    valid[[1, 5, 12]] = False
    found = contrast_anchors(rows, label, valid, temperature=0.2, similarity=similarity)
    assert found.item() == pytest.approx(plain(rows, label, valid, 0.2, similarity), abs=1e-10)


def test_all_pairs_are_the_whole_share_of_pairs():
    label, rows = torch.arange(12) % 3, unit_rows(12)
    valid = torch.ones(12, dtype=torch.bool)
    every = contrast_anchors(rows, label, valid)
    assert torch.equal(every, contrast_anchors(rows, label, valid, similarity=1.0))
    assert contrast_anchors(rows, label, valid, similarity=0.1) != every


@pytest.mark.parametrize("similarity", [None, 0.34])
def test_its_gradient_is_that_of_the_definition(similarity):
    label, valid = torch.arange(9) % 3, torch.arange(9) != 4
    assert gradcheck(
        lambda rows: contrast_anchors(rows, label, valid, similarity=similarity),
        (unit_rows(9).requires_grad_(),),
    )


def test_groups_as_the_release_computes_them():
    embeddings = torch.from_numpy(ARRAYS["D/feat"]).requires_grad_()
    loss = pixel_contrast(embeddings, torch.from_numpy(ARRAYS["D/y"]))
    loss.backward()
    assert loss.item() == pytest.approx(ARRAYS["D/loss"].item(), rel=1e-5)
    close(embeddings.grad, ARRAYS["D/grad"])


@pytest.mark.parametrize("case", ["A", "B", "C"])
def test_anchors_value_and_gradient_as_the_release_has_them(case):
    """With 255 as one more class, which it is in the release, and pixels in raster order."""
    info = META["cases"][case]
    shape = info["B"], info["C"], info["h"], info["w"]
    values = image(f"open/pc/{case}/feat", shape).astype(np.float64)
    values /= np.sqrt((values**2).sum(axis=1, keepdims=True))
    feature = torch.from_numpy(values.astype(np.float32)).requires_grad_()
    label = torch.from_numpy(ARRAYS[f"{case}/label"]).long()[:, ::4, ::4]
    label = label.where(label != IGNORE_INDEX, info["n_classes"])
    anchors = first_anchors(
        label,
        torch.from_numpy(ARRAYS[f"{case}/pred"]).long(),
        torch.arange(label.numel()).view(label.shape),
        num_classes=info["n_classes"] + 1,
        per_class=100,
        total=1024,
        min_pixels=101,
    )
    count = info["n_anchor"] * info["n_view"]
    assert anchors.valid.tolist() == [True] * count + [False] * (len(anchors.valid) - count)
    index = anchors.index[:count] % label[0].numel()
    assert np.array_equal(index.numpy(), ARRAYS[f"{case}/anchor_index"].ravel())

    rows = feature.permute(0, 2, 3, 1).flatten(0, 2)
    loss = contrast_anchors(rows[anchors.index], anchors.label, anchors.valid) * (0.1 / 0.07)
    (gradient,) = torch.autograd.grad(loss, feature)
    assert loss.item() == pytest.approx(ARRAYS[f"{case}/loss"].item(), rel=1e-5)
    rows = gradient.permute(0, 2, 3, 1).flatten(0, 2)
    close(rows[anchors.index[:count]], ARRAYS[f"{case}/grad"].reshape(count, -1))


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    assert (found - torch.from_numpy(expected)).abs().max() < 1e-5 * np.abs(expected).max()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), n=st.integers(1, 24), classes=st.integers(1, 5))
def test_neither_the_order_of_anchors_nor_the_names_of_classes_matter(seed, n, classes):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (n,), generator=generator)
    valid = torch.rand(n, generator=generator) < 0.8
    rows, order = unit_rows(n, seed=seed), torch.randperm(n, generator=generator)
    names = torch.randperm(200, generator=generator)
    for similarity in (None, 0.3):
        loss = contrast_anchors(rows, label, valid, similarity=similarity)
        other = contrast_anchors(
            rows[order], names[label[order]], valid[order], similarity=similarity
        )
        torch.testing.assert_close(loss, other, rtol=1e-10, atol=1e-10)


def test_rows_that_do_not_count_have_no_say():
    label, rows = torch.arange(12) % 3, unit_rows(12)
    valid = torch.ones(12, dtype=torch.bool)
    loss = contrast_anchors(rows, label, valid)
    more = torch.cat([rows, unit_rows(5, seed=1)]).requires_grad_()
    filled = contrast_anchors(
        more,
        torch.cat([label, torch.tensor([0, 1, 255, 255, 2])]),
        torch.cat([valid, torch.tensor([False, False, True, True, False])]),
    )
    torch.testing.assert_close(loss, filled, rtol=1e-12, atol=0)
    filled.backward()
    assert not more.grad[12:].any()


@pytest.mark.parametrize(
    ("label", "valid"),
    [
        ([3] * 6, [True] * 6),  # one class
        ([0, 1, 2, 3, 4, 5], [True] * 6),  # no two of a class
        ([255] * 6, [True] * 6),
        ([0, 0, 0, 1, 1, 1], [False] * 6),
        ([0], [True]),
    ],
)
@pytest.mark.parametrize("similarity", [None, 0.1])
def test_nothing_to_contrast_is_exactly_zero_with_a_finite_gradient(label, valid, similarity):
    rows = unit_rows(len(label), dtype=torch.float32).requires_grad_()
    loss = contrast_anchors(rows, torch.tensor(label), torch.tensor(valid), similarity=similarity)
    loss.backward()
    assert loss.item() == 0
    assert not rows.grad.any()


def test_groups_of_255_are_left_out():
    embeddings, label = unit_rows(15).view(5, 3, 6), torch.tensor([0, 255, 1, 1, 255])
    known = label != 255
    without = pixel_contrast(embeddings[known], label[known])
    torch.testing.assert_close(pixel_contrast(embeddings, label), without, rtol=1e-12, atol=0)


def test_half_precision_loses_nothing_but_its_own_rounding():
    rows, label = unit_rows(40, 16).bfloat16(), torch.arange(40) % 4
    valid = torch.ones(40, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrast_anchors(rows, label, valid)
    exact = contrast_anchors(rows.double(), label, valid)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    classes=st.integers(1, 6),
    per_class=st.integers(1, 12),
    total=st.integers(1, 60),
    decoder=st.booleans(),
)
def test_anchors_keep_to_their_limits_and_never_are_255(seed, classes, per_class, total, decoder):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes + 1, (3, 5, 7), generator=generator)
    label = label.where(label < classes, 255)
    guess = torch.randint(classes, (3, 5, 7), generator=generator) if decoder else None
    anchors = sample_anchors(
        label, guess, num_classes=classes, per_class=per_class, total=total, generator=generator
    )
    assert len(anchors.index) == len(anchors.valid) == min(total, label.numel())
    index = anchors.index[anchors.valid]
    assert len(index.unique()) == len(index)
    assert torch.equal(anchors.label[anchors.valid], label.flatten()[index])
    assert (label.flatten()[index] != 255).all()
    groups = (index // 35 * classes + label.flatten()[index]).bincount()
    assert (groups <= per_class).all()
    present = torch.stack([(label == c).sum(dim=(1, 2)) for c in range(classes)]).flatten()
    if (present > 0).sum() <= total:
        share = min(per_class, total // max(1, int((present > 0).sum())))
        assert len(index) == present.clamp(max=share).sum()


def test_half_of_the_anchors_are_where_the_decoder_errs():
    label = torch.zeros(1, 20, 20, dtype=torch.long)
    guess = torch.arange(400).view(1, 20, 20) % 10 // 9  # wrong at a tenth
    for wanted, hard in [(20, 10), (60, 30), (200, 40)]:
        anchors = sample_anchors(
            label, guess, num_classes=2, per_class=wanted, generator=torch.Generator()
        )
        chosen = guess.flatten()[anchors.index[anchors.valid]]
        assert (len(chosen), int(chosen.sum())) == (wanted, hard)


def test_small_groups_can_be_left_out():
    size = torch.tensor([[50, 51], [100, 0], [3, 300], [0, 0]])
    assert quotas(size, 100, 1024, 101).tolist() == [[50, 50], [0, 0], [3, 97], [0, 0]]
    assert quotas(size, 100, 1024, 1).tolist() == [[50, 50], [100, 0], [3, 97], [0, 0]]


def test_the_same_generator_draws_the_same_anchors():
    label = torch.randint(4, (2, 16, 16), generator=torch.Generator().manual_seed(1))

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return sample_anchors(label, None, num_classes=4, per_class=9, generator=generator).index

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_the_device_is_never_asked():
    """Tensors without values stop whatever reads one: `.item()`, `if`, `nonzero`."""
    with FakeTensorMode():
        label = torch.zeros(2, 32, 32, dtype=torch.long)
        with pytest.raises(DataDependentOutputException):
            label.sum().item()
        anchors = sample_anchors(label, label, num_classes=5)
        rows = torch.zeros(len(anchors.index), 8, requires_grad=True)
        for similarity in (None, 0.1):
            loss = contrast_anchors(rows, anchors.label, anchors.valid, similarity=similarity)
            loss.backward()


def test_no_group_is_no_loss():
    none = torch.zeros(0, 4, 8, requires_grad=True)
    loss = pixel_contrast(none, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
