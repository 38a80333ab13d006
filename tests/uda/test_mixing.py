"""ClassMix: the authors' masks and mixed images, and what it never does.

Reference numbers: golden/dacs_parts, cut by golden/trim_losses.py.
"""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe import golden, image, labels

from pipa.batch import Labelled, Unlabelled
from pipa.uda.mixing import choose_classes, mix_images, paste_mask
from pipa.uda.pseudo import Pseudo

ARRAYS, META = golden("dacs_parts")


@pytest.mark.parametrize("case", [0, 1, 2])
def test_masks_and_mixes_as_the_authors_have_them(case):
    """Apart from 255, which they paste as a class when it is drawn."""
    info = META["class_masks"][case]
    name, b, h, w = f"open/classmix/{case}", info["B"], info["H"], info["W"]
    grid = b, h // info["block"], w // info["block"], info["block"], info["n"]
    label = torch.from_numpy(labels(f"{name}/lab", *grid, info["p_ign"]))
    chosen = torch.zeros(b, 256, dtype=torch.bool)
    for i, classes in enumerate(info["chosen"]):
        chosen[i, [c for c in classes if c != 255]] = True
    paste = paste_mask(label, chosen)
    drawn = torch.tensor([255 in classes for classes in info["chosen"]])[:, None, None]
    theirs = paste | ((label == 255) & drawn)
    assert torch.equal(theirs, torch.from_numpy(ARRAYS[f"{name[5:]}/mask"])[:, 0].bool())

    pseudo = torch.from_numpy(labels(f"{name}/plab", *grid, 0))
    source, target = (torch.from_numpy(image(f"{name}/{x}", (b, 3, h, w))) for x in ("img", "tgt"))
    rng = np.random.default_rng(zlib.crc32(f"{name}/pw".encode()))
    weight = torch.from_numpy(rng.random((b, h, w)).astype(np.float32))
    for ours, key, step in [
        (torch.where(theirs[:, None], source, target), "mixed_img", 4),
        (torch.where(theirs, label, pseudo)[:, None], "mixed_lbl", 1),
        (torch.where(theirs, 1.0, weight)[:, None], "mixed_weight", 2),
    ]:
        part = ours[..., step // 2 :: step, step // 2 :: step]
        expected = torch.from_numpy(ARRAYS[f"{name[5:]}/{key}"])
        torch.testing.assert_close(part, expected.to(part.dtype), rtol=0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), classes=st.integers(1, 9))
def test_half_of_each_images_own_classes_rounded_up_and_never_255(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (3, 4, 4), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.4] = 255
    label[2] = 255
    chosen = choose_classes(label, generator)
    for one, ids in zip(label, chosen, strict=True):
        present = set(one.unique().tolist()) - {255}
        drawn = set(ids.nonzero().flatten().tolist())
        assert drawn <= present
        assert len(drawn) == (len(present) + 1) // 2


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_every_pixel_comes_whole_from_one_side(seed):
    generator = torch.Generator().manual_seed(seed)
    source = Labelled(
        torch.rand(2, 3, 6, 5, generator=generator),
        torch.randint(4, (2, 6, 5), generator=generator) * 85,  # 255 among them
    )
    target = Unlabelled(
        torch.rand(2, 3, 6, 5, generator=generator), torch.ones(2, 6, 5, dtype=torch.bool)
    )
    quality = torch.rand(2, 6, 5, generator=generator) * 0.9
    pseudo = Pseudo(torch.full((2, 6, 5), 7), quality, quality, quality > 0)
    mixed = mix_images(source, target, pseudo, torch.Generator().manual_seed(seed))
    pasted = mixed.weight == 1
    assert pasted.any()
    assert not (pasted & (source.label == 255)).any()
    assert torch.equal(mixed.label, source.label.where(pasted, pseudo.label))
    assert torch.equal(mixed.weight, torch.ones(()).where(pasted, pseudo.weight))
    assert torch.equal(mixed.image, source.image.where(pasted[:, None], target.image))
    again = mix_images(source, target, pseudo, torch.Generator().manual_seed(seed))
    assert torch.equal(mixed.image, again.image)


def test_every_class_has_the_same_chance():
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([0, 0, 0, 0, 0, 0, 3, 9, 18, 255]).view(1, 2, 5).expand(2000, 2, 5)
    share = choose_classes(label, generator).float().mean(dim=0)
    for c in (0, 3, 9, 18):
        assert share[c].item() == pytest.approx(0.5, abs=0.05)
    assert share.sum() == 2


def test_small_classes_come_first_as_often_as_their_areas_say():
    """Two of four classes are drawn one after the other, at rates that are inverse to the areas."""
    generator = torch.Generator().manual_seed(0)
    areas = {0: 40, 3: 10, 9: 4, 18: 1}
    plane = torch.cat([torch.full((n,), c) for c, n in areas.items()] + [torch.full((5,), 255)])
    label = plane.view(1, 6, 10).expand(20_000, 6, 10)
    share = choose_classes(label, generator, small=True).float().mean(dim=0)
    rates = {c: 1 / n for c, n in areas.items()}
    for c, rate in rates.items():
        first = rate / sum(rates.values())
        second = sum(
            other / sum(rates.values()) * rate / (sum(rates.values()) - other)
            for d, other in rates.items()
            if d != c
        )
        assert share[c].item() == pytest.approx(first + second, abs=0.015)
    assert share[255] == 0


def parts(seed, b=3, h=20, w=30, classes=11):
    """Source, target and pseudo-labels; every pixel differs from every other."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (b, h, w), generator=generator)
    label[torch.rand(b, h, w, generator=generator) < 0.2] = 255
    source = Labelled(torch.rand(b, 3, h, w, generator=generator), label)
    valid = torch.ones(b, h, w, dtype=torch.bool)
    target = Unlabelled(torch.rand(b, 3, h, w, generator=generator), valid)
    weight = (torch.rand(b, h, w, generator=generator) < 0.5).float()
    pseudo = torch.randint(classes, (b, h, w), generator=generator)
    return source, target, Pseudo(pseudo, weight, weight, weight > 0)


@pytest.mark.parametrize("classes", [2, 11, 19])
@pytest.mark.parametrize("size", [(20, 30), (1, 7), (33, 32)])
def test_rectangles_are_whole_and_inside(classes, size):
    source, target, pseudo = parts(0, 3, *size, classes)
    mixed = mix_images(source, target, pseudo, torch.Generator().manual_seed(1), mix="rectangle")
    pasted = (mixed.image == source.image).all(dim=1)
    for i, one in enumerate(pasted):
        rows, columns = one.any(dim=1).nonzero(), one.any(dim=0).nonzero()
        high, wide = round(0.7 * size[0]), round(0.7 * size[1])
        assert (len(rows), len(columns)) == (high, wide)
        assert one[rows[0] : rows[0] + high, columns[0] : columns[0] + wide].all()
        assert one.sum() == high * wide
        assert torch.equal(mixed.image[i, :, ~one], target.image[i, :, ~one])
        assert torch.equal(mixed.label[i], source.label[i].where(one, pseudo.label[i]))
        assert torch.equal(mixed.weight[i], torch.ones(()).where(one, pseudo.weight[i]))


def test_rectangles_reach_every_place():
    source, target, pseudo = parts(0, 2000, 4, 5)
    mixed = mix_images(source, target, pseudo, torch.Generator().manual_seed(1), mix="rectangle")
    pasted = (mixed.image == source.image).all(dim=1)  # 3 rows of 4, 4 columns of 5
    assert pasted[:, 0, 0].float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert pasted[:, 3, 4].float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert pasted[:, 1:3, 1:4].all()


def test_without_mixing_the_target_is_taught_as_it_is():
    source, target, pseudo = parts(0)
    mixed = mix_images(source, target, pseudo, mix="none")
    assert torch.equal(mixed.image, target.image)
    assert torch.equal(mixed.label, pseudo.label)
    assert torch.equal(mixed.weight, pseudo.weight)


@pytest.mark.parametrize("mix", ["class", "rectangle"])
def test_the_generator_decides_what_is_pasted(mix):
    found = [
        mix_images(*parts(0), torch.Generator().manual_seed(seed), mix=mix).image
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
