"""Jitter and blur against the authors' (kornia 0.5.8) and against the definition of a blur."""

import math

import numpy as np
import pytest
import recipe
import torch
from data.golden import ARRAYS, RECORD
from kornia.filters import gaussian_blur2d
from torch.testing import assert_close

from pipa.uda.augment import gaussian_blur, jitter_and_blur, jitter_colours, kernel_size

# the authors' operations: 0 brightness, 1 contrast, 2 saturation, 3 hue; ours: H = 2 and 3
ORDERS = {(0, 1, 2, 3): 0, (3, 2, 1, 0): 5, (2, 0, 3, 1): None, (1, 3, 0, 2): None}


@pytest.mark.parametrize("case", [0, 1])
def test_jitter_is_the_authors(case):
    record = RECORD["jitter"][case]
    factors = {name: torch.tensor(value) for name, value in record.items() if name != "order"}
    got = jitter_colours(
        torch.tensor(ARRAYS[f"jitter/{case}/in01"]),
        factors["brightness_factor"] - 1,
        factors["contrast_factor"],
        factors["saturation_factor"],
        factors["hue_factor"] * 2 * math.pi,
        torch.tensor([ORDERS[tuple(record["order"])]]),
    )
    assert_close(got, torch.tensor(ARRAYS[f"jitter/{case}/out01"]), atol=1e-5, rtol=1e-5)


def test_each_order_is_what_it_says():
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = {
        "B": lambda x: (x + 0.19).clamp(0, 1),
        "C": lambda x: (x * 1.2).clamp(0, 1),
        "H": lambda x: jitter(x, hue=0.9, saturation=1.15),
    }

    def jitter(x, shift=0.0, contrast=1.0, saturation=1.0, hue=0.0, order=0):
        values = (torch.tensor([v]) for v in (shift, contrast, saturation, hue, order))
        return jitter_colours(x, *values)

    for order, name in enumerate(["BCH", "CBH", "BHC", "CHB", "HBC", "HCB"]):
        want = image
        for step in name:
            want = steps[step](want)
        assert_close(jitter(image, 0.19, 1.2, 1.15, 0.9, order), want, atol=2e-6, rtol=0)


def test_blur_is_the_authors():
    for case in RECORD["blur"]:
        name = f"{case['h']}x{case['w']}"
        image = torch.tensor(recipe.image(f"open/blur/{name}", (1, 3, case["h"], case["w"])))
        got = gaussian_blur(image, torch.tensor([case["sigma"]]))[..., 1::2, 1::2]
        assert_close(got, torch.tensor(ARRAYS[f"blur/{name}"]), atol=1e-6, rtol=1e-5)
    for length, size in RECORD["blur_kernel_sizes"].items():
        assert kernel_size(int(length)) == size


def test_blur_is_a_weighted_mean_with_the_border_mirrored():
    image = np.random.default_rng(0).random((1, 3, 128, 128))
    sigma = 0.9
    reach = np.arange(-6, 7)
    weights = np.exp(-(reach**2) / (2 * sigma**2))
    weights /= weights.sum()
    got = gaussian_blur(torch.tensor(image), torch.tensor([sigma], dtype=torch.float64))
    for y, x in ((0, 0), (3, 127), (64, 60)):
        want = 0.0
        for dy, wy in zip(reach, weights, strict=True):
            for dx, wx in zip(reach, weights, strict=True):
                row, column = mirror(y + dy, 128), mirror(x + dx, 128)
                want = want + wy * wx * image[0, :, row, column]
        assert_close(got[0, :, y, x], torch.tensor(want), atol=1e-10, rtol=0)


def test_blur_is_kornias():
    image, sigma = torch.rand(2, 3, 140, 25), torch.tensor([0.4, 1.1])
    assert torch.equal(
        gaussian_blur(image, sigma),
        gaussian_blur2d(image, (13, 3), sigma[:, None].expand(-1, 2)),
    )


def mirror(i, length):
    return -i if i < 0 else 2 * (length - 1) - i if i >= length else i


def test_the_generator_decides_and_each_image_has_its_own_draw():
    image = torch.rand(1, 3, 32, 40).repeat(6, 1, 1, 1)
    first = jitter_and_blur(image, torch.Generator().manual_seed(3))
    assert torch.equal(first, jitter_and_blur(image, torch.Generator().manual_seed(3)))
    assert len({tuple(one.flatten()[:50].tolist()) for one in first}) >= 5
    assert first.min() >= 0
    assert first.max() <= 1 + 1e-6


def test_with_probability_zero_nothing_changes():
    image = torch.rand(3, 3, 32, 40)
    generator = torch.Generator().manual_seed(0)
    assert_close(jitter_and_blur(image, generator, jitter=0.0, blur=0.0), image, atol=2e-6, rtol=0)
