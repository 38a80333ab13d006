"""The target's style on the source: FDA against numpy's FFT, colours against their statistics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.errors import PipaError
from pipa.uda.style import (
    FLOOR,
    colour_statistics,
    eigen_decomposition,
    random_rotations,
    restyle,
    swap_amplitudes,
    transfer_colours,
)


def images(seed, b=2, h=24, w=31, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(b, 3, h, w, generator=generator, dtype=torch.float64).to(dtype)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def plain_fda(image, target, strength):
    """The paper's: of the shifted spectrum, the block around the centre; one plane at a time."""
    h, w = image.shape
    b = int(np.floor(strength * min(h, w)))
    theirs = np.fft.fftshift(np.abs(np.fft.fft2(target)))
    ours = np.fft.fft2(image)
    amplitude, phase = np.fft.fftshift(np.abs(ours)), np.angle(ours)
    rows = slice(max(0, h // 2 - b), h // 2 + b + 1)
    columns = slice(max(0, w // 2 - b), w // 2 + b + 1)
    amplitude[rows, columns] = theirs[rows, columns]
    return np.real(np.fft.ifft2(np.fft.ifftshift(amplitude) * np.exp(1j * phase)))


@pytest.mark.parametrize("size", [(24, 31), (31, 24), (32, 32)])
@pytest.mark.parametrize("strength", [0.01, 0.05, 0.1, 0.3])
def test_fda_is_the_papers(size, strength):
    image, target = (images(seed, 2, *size, torch.float64) for seed in (0, 1))
    found = swap_amplitudes(image, target, strength)
    for i in range(2):
        for c in range(3):
            expected = plain_fda(image[i, c].numpy(), target[i, c].numpy(), strength)
            np.testing.assert_allclose(found[i, c].numpy(), expected, atol=1e-10)


def test_fda_leaves_the_phase():
    image, target = images(0, dtype=torch.float64), images(1, dtype=torch.float64)
    before = torch.fft.fft2(image)
    after = torch.fft.fft2(swap_amplitudes(image, target, 0.1))
    assert not torch.allclose(before.abs(), after.abs())
    turn = after / before  # real and positive where the phases agree
    torch.testing.assert_close(turn.imag, torch.zeros_like(turn.imag), rtol=0, atol=1e-9)
    assert (turn.real > 0).all()


def test_fda_gives_the_mean_of_the_target():
    image, target = images(0) * 0.5, images(1) * 0.5 + 0.5
    found = swap_amplitudes(image, target, 0.01)
    torch.testing.assert_close(found.mean(dim=(2, 3)), target.mean(dim=(2, 3)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), turned=st.booleans())
def test_colours_have_the_targets_mean_and_covariance(seed, turned):
    generator = chance(seed)
    image, target = images(seed, 3, dtype=torch.float64), images(seed + 1, 3, dtype=torch.float64)
    image = image * torch.rand(3, 3, 1, 1, generator=generator) * 0.8 + 0.1
    target[:, 1] = 0.9 * target[:, 0] + 0.1 * target[:, 1]  # correlated
    target[0] = target[0, :1]  # grey: of rank 1
    rotation = random_rotations(3, generator).double() if turned else None
    enough = torch.linalg.eigvalsh(colour_statistics(image)[1]).amin(dim=1) > 2 * FLOOR
    found = colour_statistics(transfer_colours(image, target, rotation))
    for ours, theirs in zip(found, colour_statistics(target), strict=True):
        torch.testing.assert_close(ours[enough], theirs[enough], rtol=0, atol=1e-6)


def test_without_a_turn_colours_of_the_same_statistics_stay():
    image = images(3, dtype=torch.float64)
    place = torch.randperm(24 * 31, generator=chance())
    shuffled = image.flatten(2)[..., place].view_as(image)
    torch.testing.assert_close(transfer_colours(image, shuffled), image, rtol=0, atol=1e-10)


def test_grey_noise_is_not_blown_up():
    """A grey photograph after JPEG: its chroma is a third of a grey level of noise."""
    image = images(0, 1)[:, :1] + 0.3 / 255 * torch.randn(1, 3, 24, 31, generator=chance())
    found = transfer_colours(image, images(1, 1))
    chroma = (found - found.mean(dim=1, keepdim=True)).std()
    assert chroma < 0.35 * images(1, 1).std()


def test_a_turn_inverts_some_images():
    """Bright on dark becomes dark on bright: the reason for turning at all."""
    image = images(0, 64) * 0.2
    image[:, :, 8:16, 8:16] += 0.7
    found = restyle(image, images(1, 64), chance(), style="colour")
    brighter = found[..., 8:16, 8:16].mean(dim=(1, 2, 3)) > found[..., :8, :].mean(dim=(1, 2, 3))
    assert 16 < brighter.sum() < 48
    straight = restyle(image, images(1, 64), chance(), style="colour", turn=False)
    assert (straight[..., 8:16, 8:16].mean((1, 2, 3)) > straight[..., :8, :].mean((1, 2, 3))).all()


def test_rotations_are_orthogonal_and_of_both_kinds():
    q = random_rotations(500, chance())
    torch.testing.assert_close(q @ q.mT, torch.eye(3).expand_as(q), rtol=0, atol=1e-5)
    assert 200 < (torch.linalg.det(q) > 0).sum() < 300
    assert q.mean(dim=0).abs().max() < 0.1  # uniform: no direction is preferred


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eigen_decomposition_is_lapacks(dtype):
    points = torch.randn(600, 3, 4, generator=chance(), dtype=torch.float64)
    points *= torch.rand(600, 3, 1, generator=chance(1), dtype=torch.float64) ** 6
    points[100:200] = points[100:200, :1]  # of rank 1, with a double eigenvalue
    points[200:250] = 0
    matrix = (points @ points.mT).to(dtype)
    values, vectors = eigen_decomposition(matrix)
    small = {torch.float32: 2e-4, torch.float64: 1e-12}[dtype]
    expected = torch.linalg.eigvalsh(matrix)
    torch.testing.assert_close(values.sort(dim=1)[0], expected, rtol=small, atol=small)
    again = vectors @ torch.diag_embed(values) @ vectors.mT
    torch.testing.assert_close(again, matrix, rtol=small, atol=small)


@pytest.mark.parametrize("style", ["fda", "colour"])
def test_strength_zero_and_probability_zero_change_nothing(style):
    image, target = images(0), images(1)
    for options in ({"strength": 0.0}, {"probability": 0.0}):
        assert torch.equal(restyle(image, target, chance(), style=style, **options), image)
    assert torch.equal(restyle(image, target, chance(), style="none"), image)
    assert not torch.equal(restyle(image, target, chance(), style=style), image)


@pytest.mark.parametrize("style", ["fda", "colour"])
def test_the_generator_decides(style):
    image, target = images(0, 8), images(1, 5)
    first, again, other = (restyle(image, target, chance(s), style=style) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1


def test_each_image_is_drawn_for_itself():
    image, target = images(0, 400, 4, 4), images(1, 3, 4, 4)
    found = restyle(image, target, chance(), style="fda", probability=0.25)
    changed = (found != image).flatten(1).any(dim=1)
    assert 70 < changed.sum() < 130
    lenders = (found.mean(dim=(2, 3))[:, None] - target.mean(dim=(2, 3))).abs().sum(2).argmin(1)
    assert set(lenders[changed].tolist()) == {0, 1, 2}


def test_strength_interpolates_colours():
    image, target = images(0) * 0.3 + 0.3, images(1) * 0.2 + 0.4
    full = restyle(image, target, chance(), style="colour")
    half = restyle(image, target, chance(), style="colour", strength=0.5)
    assert full.min() > 0
    assert full.max() < 1
    torch.testing.assert_close(half, (image + full) / 2)


def test_one_colour_neither_lends_nor_borrows():
    plain, image = torch.full((1, 3, 8, 8), 0.2), images(0, 1, 8, 8)
    assert torch.equal(restyle(plain, image, chance(), style="colour"), plain)
    assert torch.equal(restyle(image, plain, chance(), style="colour"), image)
    assert restyle(plain, image, chance(), style="fda").isfinite().all()


def test_bfloat16_changes_no_colour_statistics():
    image, target = images(0), images(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = [restyle(image, target, chance(), style=s) for s in ("fda", "colour")]
    plain = [restyle(image, target, chance(), style=s) for s in ("fda", "colour")]
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"style": "fda", "strength": 0.6},
        {"style": "colour", "strength": 1.1},
        {"style": "colour", "strength": -0.1},
        {"style": "fda", "probability": 1.5},
    ],
)
def test_numbers_outside_their_range_are_refused(options):
    with pytest.raises(PipaError, match=r"Give a number in 0 \.\. "):
        restyle(images(0), images(1), chance(), **options)
