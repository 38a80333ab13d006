"""Draws: pixel coordinates carried as an image, chance that depends on the number alone."""

import numpy as np
import pytest
import torch
from builders import folder, mosaic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipa.data.cutting import Cutting
from pipa.data.dataset import Segmentation
from pipa.data.draws import Draws, SourceCrops
from pipa.data.labels import ids_table
from pipa.data.layouts import Files, Pair
from pipa.data.rare_classes import RareClasses, class_counts
from pipa.data.tables import named
from pipa.data.target_crops import PairCutting, TargetCrops
from pipa.errors import PipaError
from pipa.files.images import write_png

HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory):
    """An image whose red is the row and whose green is the column, labelled by the row."""
    root = tmp_path_factory.mktemp("coordinates")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    write_png(root / "image.png", np.stack([rows, columns, 0 * rows], -1))
    write_png(root / "label.png", rows)
    files = Files(root, [Pair(root / "image.png", root / "label.png")], None)
    return Segmentation(files, named(tuple(f"row {i}" for i in range(HEIGHT)), "rows"))


SIDE = st.integers(16, 60)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    crop=st.tuples(SIDE, SIDE),
    stride=st.sampled_from([1, 4, 8]),
    least=st.floats(0.02, 0.5),
    seed=st.integers(0, 2**32),
    resize=st.sampled_from([None, (97, 140), (72, 90)]),
)
def test_the_overlap_of_a_pair_is_equal_to_the_pixel(
    coordinates, crop, stride, least, seed, resize
):
    how = PairCutting("image", crop, (least, 1.0), stride)
    target = TargetCrops(coordinates, Cutting((16, 16), resize), how, target_margins=(9, 20, 3, 7))
    _, pair = target.draw(np.random.default_rng(seed))
    first, second = (
        [plane.numpy()[:, :: -1 if flip else 1] for plane in part]
        for part, flip in zip((pair.first, pair.second), pair.flipped, strict=True)
    )
    assert first[0].shape == second[0].shape == (*crop, 3)
    dy, dx = pair.shift.tolist()
    assert dy % stride == 0 == dx % stride
    shared = (crop[0] - abs(dy)) * (crop[1] - abs(dx))
    assert shared / (2 * crop[0] * crop[1] - shared) >= least
    rows = slice(max(dy, 0), crop[0] + min(dy, 0)), slice(max(-dy, 0), crop[0] + min(-dy, 0))
    columns = slice(max(dx, 0), crop[1] + min(dx, 0)), slice(max(-dx, 0), crop[1] + min(-dx, 0))
    for one, two in zip(first, second, strict=True):
        assert np.array_equal(one[rows[0], columns[0]], two[rows[1], columns[1]])
    if resize is None:  # and the crops are what they say, pixel by pixel
        top, left = first[0][0, 0, :2].astype(int)
        want = np.mgrid[top : top + crop[0], left : left + crop[1]]
        assert np.array_equal(first[0][..., :2], want.transpose(1, 2, 0))
        rows, columns = want
        inside = (rows >= 9) & (rows < HEIGHT - 20) & (columns >= 3) & (columns < WIDTH - 7)
        assert np.array_equal(first[1], inside)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    crop=st.tuples(SIDE, SIDE),
    seed=st.integers(0, 2**32),
    resize=st.sampled_from([None, (180, 240), (70, 95)]),
)
def test_image_and_label_stay_aligned(coordinates, crop, seed, resize):
    source = SourceCrops(coordinates, Cutting(crop, resize))
    image, label = (plane.numpy() for plane in source.draw(np.random.default_rng(seed)))
    assert image.shape == (*crop, 3)
    assert label.shape == crop
    if resize is None:
        assert np.array_equal(image[..., 0], label)
    inner = np.abs(image[..., 0].astype(float) - label)
    assert inner.max() <= max(1, 90 / (resize or (90,))[0]), (
        "nearest and bilinear differ by a pixel"
    )


def test_half_of_the_crops_are_mirrored(coordinates):
    source = SourceCrops(coordinates, Cutting((20, 20)))
    draws = [source.draw(np.random.default_rng([0, 0, i])).image.int() for i in range(400)]
    mirrored = sum(image[0, 0, 1] > image[0, 1, 1] for image in draws)
    assert abs(mirrored - 200) < 5 * 10


def test_a_draw_depends_on_its_number_alone(coordinates):
    source = SourceCrops(coordinates, Cutting((16, 24)))
    target = TargetCrops(coordinates, Cutting((16, 24)), PairCutting("image", (16, 24)))
    both, alone = Draws(source, target, seed=3), Draws(source, None, seed=3)
    without_pair = Draws(source, TargetCrops(coordinates, Cutting((16, 24))), seed=3)
    for number in (5, 0, 12):
        one, two, three = (draws[number].content for draws in (both, alone, without_pair))
        assert torch.equal(one.source.image, two.source.image)
        assert torch.equal(one.target.image, three.target.image)
        assert two.target is None
        assert three.pair is None
    fifth, sixth, other = both[5], both[6], Draws(source, target, seed=4)[5]
    assert not torch.equal(fifth.content.source.image, sixth.content.source.image)
    assert not torch.equal(fifth.content.source.image, other.content.source.image)


def test_the_rare_class_is_in_the_crop(tmp_path):
    label = np.zeros((60, 80), np.uint8)
    label[40:50, 60:70] = 1
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        write_png(tmp_path / f"images/{name}.png", np.zeros((60, 80, 3), np.uint8))
        write_png(tmp_path / f"{name}.png", label if name == "b" else 0 * label)
    pairs = [Pair(tmp_path / f"images/{n}.png", tmp_path / f"{n}.png") for n in "ab"]
    images = Segmentation(Files(tmp_path, pairs, None), named(("most", "rare"), "test"))
    counts = class_counts(images, ("most", "rare"))
    rare = RareClasses(counts, 0.01, min_pixels=80)
    source = SourceCrops(images, Cutting((30, 40)), 1.0, rare, min_crop_ratio=0.5)
    plain = SourceCrops(images, Cutting((30, 40)), 1.0)
    have = [
        [np.count_nonzero(s.draw(np.random.default_rng(i)).label == 1) > 40 for i in range(300)]
        for s in (source, plain)
    ]
    hit = np.mean(have[1])
    assert hit < 0.3
    assert abs(np.mean(have[0]) - (1 - (1 - 2 * hit) ** 11)) < 0.06, "11 crops of image b"


def test_fixed_margins_are_those_of_the_crop(coordinates):
    target = TargetCrops(coordinates, Cutting((20, 30)), target_crop_margins=(2, 5, 0, 1))
    valid = target.draw(np.random.default_rng(0))[0].valid
    want = np.zeros((20, 30), bool)
    want[2:15, :29] = True
    assert np.array_equal(valid, want)


def test_images_smaller_than_the_crop_are_refused_or_filled_up(tmp_path):
    files = Files(tmp_path, [Pair(folder(tmp_path) / "images/000.png", None)], None)
    images = Segmentation(files, None)
    rng = np.random.default_rng(0)
    with pytest.raises(PipaError, match=r"000\.png: the crop of 50x32 is larger than the image"):
        TargetCrops(images, Cutting((50, 32))).draw(rng)
    with pytest.raises(PipaError, match="24x32 after resizing"):
        TargetCrops(images, Cutting((25, 32), (24, 32))).draw(rng)
    how = PairCutting("image", (56, 40))
    crop, pair = TargetCrops(images, Cutting((50, 70), None, pad=True), how).draw(rng)
    assert crop.image.shape == (50, 70, 3)
    assert crop.valid[:48].sum() == 48 * 64
    assert not crop.valid[48:].any()
    assert pair.first.image.shape == (56, 40, 3)
    labelled = Segmentation(
        Files(tmp_path, [Pair(tmp_path / "images/000.png", tmp_path / "labels/000.png")], None),
        ids_table(named(("a", "b", "c"), "test").labels),
    )
    drawn = SourceCrops(labelled, Cutting((50, 70), None, pad=True), 1.0).draw(rng)
    image, label = (plane.numpy() for plane in drawn)
    assert image.shape == (50, 70, 3)
    assert np.count_nonzero(label == 255) == 50 * 70 - 48 * 64
    kept = label[:48, :64] if label[0, 0] != 255 else label[:48, 6:]
    assert any(np.array_equal(kept[:, ::side], mosaic(0)) for side in (1, -1))


def test_a_pair_that_cannot_be_is_refused(coordinates):
    target = TargetCrops(
        coordinates, Cutting((16, 16)), PairCutting("image", (80, 110), (0.1, 0.2))
    )
    with pytest.raises(PipaError, match="Widen `pair_iou`"):
        target.draw(np.random.default_rng(0))


def test_the_pair_may_be_of_another_scale(coordinates):
    how = PairCutting("image", (64, 64), (0.1, 1.0), 8, pair_scale=(2.0, 2.0))
    target = TargetCrops(coordinates, Cutting((16, 16)), how)
    _, pair = target.draw(np.random.default_rng(1))
    first = pair.first.image[:, 0, 0].numpy()
    assert np.diff(first.astype(int)).mean() == pytest.approx(0.5, abs=0.02)
