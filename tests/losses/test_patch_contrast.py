"""`L_Patch`: its definition in plain loops, the authors' numbers, and the geometry of two crops.

Reference numbers: golden/patch_contrast, cut by golden/trim_losses.py. The authors' two variants
differ in the weight of the loss alone.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe import golden, image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck
from torch.nn import functional as F

from pipa.losses import patch_contrast
from pipa.losses.bank_mass import BLOCK
from pipa.losses.patch_contrast import align

ARRAYS, META = golden("patch_contrast")


def example(n=7, m=9, d=5, seed=0, dtype=torch.float64):
    """Arguments of `patch_contrast`; some rows of the bank are 255, some places unsure."""
    generator = torch.Generator().manual_seed(seed)

    def unit(rows):
        values = torch.randn(rows, d, generator=generator, dtype=torch.float64)
        return F.normalize(values, dim=1).to(dtype)

    def label(rows):
        return torch.randint(3, (rows,), generator=generator)

    bank_label = label(m)
    bank_label[::4] = 255
    confidence = torch.rand(2, n, generator=generator) * 0.2 + 0.8
    return [unit(n), unit(n), unit(m), label(n), label(n), bank_label, *confidence]


def plain(first, second, bank, label_1, label_2, bank_label, sure_1, sure_2, tau=0.1, least=0.9):
    """The definition: loops, float64. 1e-8 is the release's."""

    def direction(query, goal, label, sure, goal_sure):
        losses = []
        for i in range(len(query)):
            if goal_sure[i] > least and sure[i] < goal_sure[i]:
                good = math.exp(query[i] @ goal[i] / tau)
                bad = sum(
                    math.exp(query[i] @ bank[j] / tau)
                    for j in range(len(bank))
                    if bank_label[j] != 255 and bank_label[j] != label[i]
                )
                losses.append(-math.log(good / (good + bad) + 1e-8))
        return sum(losses) / max(1, len(losses))

    forth = direction(first, second, label_1, sure_1, sure_2)
    return forth + direction(second, first, label_2, sure_2, sure_1)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_definition(seed):
    arguments = example(seed=seed)
    found = patch_contrast(*arguments, temperature=0.3, threshold=0.85)
    assert found.item() == pytest.approx(plain(*arguments, tau=0.3, least=0.85), abs=1e-10)
    assert found.item() > 0


def test_its_gradient_is_that_of_the_definition():
    """The loss of the less confident crop, which learns; the other one is a constant."""
    first, second, bank, *rest = example()
    rest[-2:] = torch.full((7,), 0.5), torch.full((7,), 0.95)
    for place in (first, bank):
        place.requires_grad_()
    assert gradcheck(
        lambda a, b: patch_contrast(a, second, b, *rest, temperature=0.5), (first, bank)
    )


def both_ways(first, second, bank, label_1, label_2, bank_label, sure_1, sure_2):
    """Both directions for every place, even if it does not learn: twice the work."""

    def direction(query, goal, label, learns):
        positive = (query * goal.detach()).sum(dim=1) / 0.1
        mask = (label[:, None] != bank_label) & (bank_label != 255)
        mass = (query @ bank.T / 0.1).masked_fill(~mask, -1e30).logsumexp(dim=1)
        loss = -torch.log(torch.exp(positive - torch.logaddexp(positive, mass)) + 1e-8)
        return (loss.clamp(min=0) * learns).sum() / learns.sum().clamp(min=1)

    forth = direction(first, second, label_1, (sure_2 > 0.9) & (sure_1 < sure_2))
    return forth + direction(second, first, label_2, (sure_1 > 0.9) & (sure_2 < sure_1))


@pytest.mark.parametrize("seed", range(3))
def test_one_direction_has_the_value_and_the_gradients_of_both(seed):
    """The loss of more places than are compared with the bank at a time."""
    n = BLOCK + 100
    arguments = example(n=n, m=30, seed=seed)
    arguments[-1][::7] = arguments[-2][::7]  # ties
    views = [view.requires_grad_() for view in arguments[:3]]
    found, expected = patch_contrast(*arguments), both_ways(*arguments)
    assert found.item() == pytest.approx(expected.item(), abs=1e-10)
    gradients = zip(
        torch.autograd.grad(found, views), torch.autograd.grad(expected, views), strict=True
    )
    for one, other in gradients:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["fresh", "second", "full", "chunk"])
def test_value_and_gradients_as_the_release_has_them(case):
    features, planes = features_of(case), planes_of(case)
    arguments = [overlap(feature, case, view).T for view, feature in enumerate(features)]
    assert len(arguments[0]) == META["cases"][case]["n_overlap"]
    arguments += bank_of(case, features, planes)
    labels_1, labels_2, sure_1, sure_2 = (
        overlap(plane, case, i % 2) for i, plane in enumerate(planes)
    )
    first, second, bank, bank_label = arguments
    loss = patch_contrast(first, second, bank, labels_1, labels_2, bank_label, sure_1, sure_2)
    for weight, name in [(0.1, "loss_unsup"), (0.01, "loss_unsup_hrda")]:
        expected = ARRAYS[f"{case}/{name}"].item()
        assert (weight * loss).item() == pytest.approx(expected, rel=1e-5)
    gradients = torch.autograd.grad(0.1 * loss, features)
    for found, name in zip(gradients, ["grad_o1", "grad_o2"], strict=True):
        expected = torch.from_numpy(ARRAYS[f"{case}/{name}"])
        assert (found[..., 1::2, 1::2] - expected).abs().max() < 1e-5 * expected.abs().max()


def unit_image(name, shape):
    values = image(name, shape).astype(np.float64)
    values /= np.sqrt((values**2).sum(axis=1, keepdims=True))
    return torch.from_numpy(values.astype(np.float32))


def features_of(case):
    shape = tuple(META["cases"][case][key] for key in "BChw")
    return [unit_image(f"open/patch/{case}/{o}", shape).requires_grad_() for o in ("o1", "o2")]


def planes_of(case):
    labels = [torch.from_numpy(ARRAYS[f"{case}/label{i}"]).long() for i in (1, 2)]
    return labels + [torch.from_numpy(ARRAYS[f"{case}/conf{i}"]) for i in (1, 2)]


def overlap(values, case, view):
    """The overlap of all images, one after another, un-flipped: (..., n)."""
    top, left = ARRAYS[f"{case}/ul{view + 1}"] // 8
    bottom, right = ARRAYS[f"{case}/br{view + 1}"] // 8
    parts = []
    for i, one in enumerate(values):
        upright = one.flip(-1) if ARRAYS[f"{case}/flip"][view, i] else one
        parts.append(upright[..., top[i] : bottom[i], left[i] : right[i]].flatten(-2))
    return torch.cat(parts, dim=-1)


def bank_of(case, features, planes):
    """Rows of earlier steps, oldest first, and this step's; and their labels."""
    info = META["cases"][case]
    shape = (2 * info["selected_num"], info["C"])
    earlier = range(info["bank_before"])
    rows = [unit_image(f"open/patch/{case}/bank{i}", shape) for i in earlier]
    labels = [torch.from_numpy(ARRAYS[f"{case}/bank_label{i}"]).long() for i in earlier]
    for view, name in enumerate(["sel1", "sel2"]):
        chosen = torch.from_numpy(ARRAYS[f"{case}/{name}"]).long()
        rows.append(features[view].detach().permute(0, 2, 3, 1).flatten(0, 2)[chosen])
        labels.append(planes[view].flatten()[chosen])
    last = slice(-info["bank_rows"], None)
    return torch.cat(rows)[last], torch.cat(labels)[last]


def test_the_more_confident_view_does_not_move():
    arguments = example()
    first, second = (view.requires_grad_() for view in arguments[:2])
    sure_1, sure_2 = arguments[-2:]
    patch_contrast(*arguments).backward()
    first_learns = (sure_2 > 0.9) & (sure_1 < sure_2)
    second_learns = (sure_1 > 0.9) & (sure_2 < sure_1)
    assert first_learns.any()
    assert second_learns.any()
    assert torch.equal(first.grad.any(dim=1), first_learns)
    assert torch.equal(second.grad.any(dim=1), second_learns)


def test_rows_of_the_same_class_and_of_255_are_no_negatives():
    arguments = example(m=12)
    arguments[3][:] = arguments[4][:] = 1
    arguments[2].requires_grad_()
    patch_contrast(*arguments).backward()
    bank_label = arguments[5]
    repels = (bank_label != 1) & (bank_label != 255)
    assert torch.equal(arguments[2].grad.any(dim=1), repels)


@pytest.mark.parametrize("nothing", ["unsure", "equal", "no negative", "empty bank label"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_contrast_is_exactly_zero_with_a_finite_gradient(nothing, dtype):
    arguments = example(dtype=dtype)
    if nothing == "unsure":
        arguments[-2:] = torch.zeros(7), torch.full((7,), 0.9)
    elif nothing == "equal":
        arguments[-2:] = torch.ones(7), torch.ones(7)
    elif nothing == "no negative":
        for label in arguments[3:6]:
            label[:] = 2
    else:
        arguments[5][:] = 255
    for view in arguments[:3]:
        view.requires_grad_()
    loss = patch_contrast(*arguments)
    loss.backward()
    assert loss.item() == 0
    for view in arguments[:3]:
        assert view.grad is not None
        assert not view.grad.any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_order_of_places_and_rows_names_of_classes_and_of_views_do_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    first, second, bank, label_1, label_2, bank_label, sure_1, sure_2 = example(seed=seed)
    loss = patch_contrast(first, second, bank, label_1, label_2, bank_label, sure_1, sure_2)
    names = torch.cat([torch.randperm(200, generator=generator), torch.full((56,), 255)])
    places, rows = torch.randperm(7, generator=generator), torch.randperm(9, generator=generator)
    other = patch_contrast(
        second[places],
        first[places],
        bank[rows],
        names[label_2][places],
        names[label_1][places],
        names[bank_label][rows],
        sure_2[places],
        sure_1[places],
    )
    torch.testing.assert_close(loss, other, rtol=1e-10, atol=1e-10)


def test_half_precision_loses_nothing_but_its_own_rounding():
    arguments = example(dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = patch_contrast(*arguments)
    exact = patch_contrast(*(view.double() for view in arguments[:3]), *arguments[3:])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_the_device_is_never_asked():
    """Tensors without values stop whatever reads one: `.item()`, `if`, `nonzero`."""
    arguments = example(dtype=torch.float32)
    with FakeTensorMode() as mode:
        arguments = [mode.from_tensor(value) for value in arguments]
        patch_contrast(arguments[0].requires_grad_(), *arguments[1:]).backward()
        shift = torch.zeros(2, 2, dtype=torch.long)
        align(torch.zeros(2, 3, 4, 4), shift, shift.bool())
        align(torch.zeros(2, 3, 4, 4), shift, shift.bool(), torch.zeros(2, 2, 4, 4))


crops = st.tuples(
    st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)
)  # corners of both crops in cells: y1, x1, y2, x2
flips = st.tuples(st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.lists(st.tuples(crops, flips), min_size=1, max_size=3),
    stride=st.sampled_from([1, 2, 4]),
    size=st.tuples(st.integers(1, 4), st.integers(1, 5)),
)
def test_the_same_place_meets_itself_through_crop_stride_flip_and_align(boxes, stride, size):
    """Coordinates are carried as an image; a cell's feature is the mean of its pixels."""
    h, w = size
    y, x = torch.meshgrid(torch.arange(10 * stride), torch.arange(10 * stride), indexing="ij")
    scene = torch.stack([y, x]).double()

    def features(top, left, mirrored):
        rows, columns = (
            slice(top * stride, (top + h) * stride),
            slice(left * stride, (left + w) * stride),
        )
        crop = scene[:, rows, columns]
        crop = crop.flip(-1) if mirrored else crop
        return F.avg_pool2d(crop, stride)

    first = torch.stack([features(y1, x1, a) for (y1, x1, _, _), (a, _) in boxes])
    second = torch.stack([features(y2, x2, b) for (_, _, y2, x2), (_, b) in boxes])
    shift = torch.tensor([[y2 - y1, x2 - x1] for (y1, x1, y2, x2), _ in boxes])
    moved, seen = align(second, shift, torch.tensor([pair for _, pair in boxes]))

    places = first.permute(0, 2, 3, 1)
    assert torch.equal(moved.permute(0, 2, 3, 1)[seen], places[seen])
    for i, ((_, _, y2, x2), _) in enumerate(boxes):
        corner = torch.tensor([y2, x2], dtype=torch.float64) * stride
        inside = (places[i] >= corner) & (places[i] < corner + torch.tensor([h, w]) * stride)
        assert torch.equal(seen[i], inside.all(dim=-1))


@pytest.mark.parametrize("flipped", [(a, b) for a in (False, True) for b in (False, True)])
def test_places_that_all_move_alike_are_those_of_another_shift(flipped):
    second = torch.arange(2 * 3 * 5 * 7).view(2, 3, 5, 7)
    flipped = torch.tensor([flipped, flipped[::-1]])
    shift, moved = torch.tensor([[1, -2], [0, 3]]), torch.tensor([[-1, 2], [2, 1]])
    flow = (moved[:, :, None, None] + 0.4).expand(-1, -1, 5, 7)
    still, seen = align(second, shift - moved, flipped)
    found, also = align(second, shift, flipped, flow)
    assert torch.equal(seen, also)
    assert torch.equal(still, found)


def test_each_place_moves_by_its_own_flow_against_plain_loops():
    generator = torch.Generator().manual_seed(0)
    b, h, w = 4, 5, 7
    second = torch.rand(b, 3, h, w, generator=generator)
    shift = torch.tensor([[0, 0], [1, 0], [0, -2], [-1, 1]])
    flipped = torch.tensor([(False, False), (True, False), (False, True), (True, True)])
    flow = torch.randint(-2, 3, (b, 2, h, w), generator=generator).float()
    flow[torch.rand(b, 2, h, w, generator=generator) < 0.1] = torch.nan
    found, seen = align(second, shift, flipped, flow)
    for i in range(b):
        for y in range(h):
            for x in range(w):
                column = w - 1 - x if flipped[i, 0] else x
                down, right = flow[i, :, y, column].tolist()
                to_y, to_x = y - shift[i, 0] + down, column - shift[i, 1] + right
                inside = bool(0 <= to_y < h and 0 <= to_x < w)  # False for nan
                assert seen[i, y, x] == inside
                if inside:
                    to_x = w - 1 - to_x if flipped[i, 1] else to_x
                    assert torch.equal(found[i, :, y, x], second[i, :, int(to_y), int(to_x)])


@pytest.mark.parametrize("mutual", [False, True])
def test_no_place_is_no_loss_and_an_empty_bank_repels_nothing(mutual):
    for places, negatives in ((0, 9), (0, 0), (7, 0)):
        arguments = example(places, negatives)
        first = arguments[0] = arguments[0].requires_grad_()
        loss = patch_contrast(*arguments, mutual=mutual)
        (gradient,) = torch.autograd.grad(loss, first)
        assert loss.item() == 0
        assert torch.equal(gradient, torch.zeros_like(first))
