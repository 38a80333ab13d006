"""Pairs from neighbouring frames: each pixel says its row, its column, and its frame."""

from itertools import islice

import numpy as np
import pytest
import torch
from builders import folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipa.data.cutting import Cutting
from pipa.data.data_sets import folder as find
from pipa.data.dataset import Segmentation
from pipa.data.layouts import Files, Pair
from pipa.data.module import UDAData
from pipa.data.target_crops import PairCutting, TargetCrops
from pipa.errors import PipaError
from pipa.files.images import write_png

SIZE = 50, 70
CROP = 24, 32
FRAMES = {"city/a": 6, "city/b": 3, "c": 1}
"""Folders, and how many frames each has; frame i of folder number f is blue by 10 f + i."""


def frame(colour, size=SIZE):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([rows, columns, rows * 0 + colour], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("frames")
    for f, (name, count) in enumerate(FRAMES.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            write_png(root / name / f"frame_{i:03}.png", frame(10 * f + i))
    return root


def target(root, frames, **options):
    images = Segmentation(find(root, "", False), None)
    how = PairCutting("image", CROP, (0.1, 1.0), 4, pair_frames=frames)
    return TargetCrops(images, Cutting((16, 16)), how, **options)


def upright(pair):
    """Image and mask of both crops, not mirrored."""
    return [
        [plane.numpy()[:, :: -1 if flip else 1] for plane in part]
        for part, flip in zip((pair.first, pair.second), pair.flipped, strict=True)
    ]


def moments(target, pair):
    """The frames that a draw's target, first and second crop are of."""
    seen = [np.unique(crop.image[..., 2]) for crop in (target, pair.first, pair.second)]
    assert all(len(one) == 1 for one in seen)
    return tuple(int(one[0]) for one in seen)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(frames=st.integers(1, 7), seed=st.integers(0, 2**32))
def test_the_second_crop_is_of_a_near_frame_at_the_overlapping_place(root, frames, seed):
    crop, pair = target(root, frames, target_margins=(3, 9, 2, 5)).draw(np.random.default_rng(seed))
    whole, first, second = moments(crop, pair)
    assert whole == first
    assert first // 10 == second // 10
    count = [*FRAMES.values()][first // 10]
    assert abs(first - second) <= min(frames, count - 1)
    at_an_end = first % 10 in (0, count - 1)
    assert first != second or at_an_end

    corners = []
    for image, valid in upright(pair):
        top, left = (int(x) for x in image[0, 0, :2])
        rows, columns = np.mgrid[top : top + CROP[0], left : left + CROP[1]]
        assert np.array_equal(image[..., :2], np.stack([rows, columns], -1))
        inside = (rows >= 3) & (rows < SIZE[0] - 9) & (columns >= 2) & (columns < SIZE[1] - 5)
        assert np.array_equal(valid, inside)
        corners.append((top, left))
    assert pair.shift.tolist() == [b - a for a, b in zip(*corners, strict=True)]


def test_every_near_frame_is_drawn_as_often_before_as_after(root):
    draws = target(root, 2)
    seen = [moments(*draws.draw(np.random.default_rng(i)))[1:] for i in range(1500)]
    steps = [second - first for first, second in seen if first in (2, 3)]  # amid six
    share = np.bincount(np.array(steps) + 2, minlength=5) / len(steps)
    assert share[2] == 0
    assert np.allclose(share[[0, 1, 3, 4]], 0.25, atol=0.08)
    at_the_end = {second for first, second in seen if first == 5}
    assert at_the_end == {3, 4, 5}  # beyond the end there is the end
    assert {second for first, second in seen if first == 20} == {20}  # a folder of its own


def test_other_frames_are_cut_where_the_same_frame_would_be(root):
    """So runs with and without differ in the frame alone; and 0 takes one image, as ever."""
    for seed in range(30):
        draws = [target(root, n).draw(np.random.default_rng(seed)) for n in (0, 3)]
        (one, pair), (other, other_pair) = draws
        assert torch.equal(one.image, other.image)
        assert torch.equal(pair.first.image, other_pair.first.image)
        assert torch.equal(pair.shift, other_pair.shift)
        assert torch.equal(pair.flipped, other_pair.flipped)
        assert torch.equal(pair.second.image[..., :2], other_pair.second.image[..., :2])
        assert len(set(moments(one, pair))) == 1


def test_frames_of_another_size_are_no_neighbours(tmp_path):
    for i in range(4):
        write_png(tmp_path / f"{i}.png", frame(i, SIZE if i != 2 else (60, 80)))
    seen = {moments(*target(tmp_path, 1).draw(np.random.default_rng(i)))[1:] for i in range(80)}
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (3, 3)}


def test_time_is_the_order_of_names_however_files_are_listed(tmp_path):
    names = ["b.png", "d.png", "a.png", "c.png"]
    files = Files(tmp_path, [Pair(tmp_path / "x" / name, None) for name in names], None)
    files.pairs.insert(2, Pair(tmp_path / "y" / "b.png", None))
    images = Segmentation(files, None)
    after = {steps: [images.neighbour(i, steps) for i in range(5)] for steps in (-9, -1, 0, 1, 2)}
    assert after == {
        -9: [3, 3, 2, 3, 3],
        -1: [3, 4, 2, 3, 0],
        0: [0, 1, 2, 3, 4],
        1: [4, 1, 2, 0, 1],
        2: [1, 1, 2, 4, 1],
    }


def test_a_faulty_neighbour_is_reported(tmp_path):
    for i in range(2):
        write_png(tmp_path / f"{i}.png", frame(i))
    drawing = target(tmp_path, 1)
    draws = (moments(*drawing.draw(np.random.default_rng(seed))) for seed in range(99))
    seed = next(seed for seed, drawn in enumerate(draws) if drawn[1:] == (0, 1))
    (tmp_path / "1.png").write_bytes(b"x")
    with pytest.raises(PipaError, match=r"1\.png: the file is truncated or no image"):
        drawing.draw(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("frames") / "source", 2)


def data(source, root, **options):
    given = {"crop": 16, "pair_crop": CROP, "batch_size": 4, "workers": 0}
    given |= {"pair_frames": 2, "pair_from": "image"}
    module = UDAData(str(source), str(root / "city"), **(given | options))
    module.setup("fit")
    return module


def batches(source, root, **options):
    return list(islice(data(source, root, **options).train_dataloader(), 3))


def test_the_option_of_the_data_module(source, root):
    """The second crops are of other frames; the same for any number of workers and any cache."""
    want = batches(source, root)
    pairs = [batch.pair for batch in want]
    apart = torch.cat([p.first.image[:, 2, 0, 0] - p.second.image[:, 2, 0, 0] for p in pairs])
    assert set((apart * 255).round().abs().int().tolist()) <= {0, 1, 2}
    assert (apart != 0).float().mean() > 0.5
    for options in ({"workers": 2}, {"cache": False}):
        for one, other in zip(batches(source, root, **options), want, strict=True):
            assert torch.equal(one.pair.second.image, other.pair.second.image)
            assert torch.equal(one.pair.first.image, other.pair.first.image)
    for batch in batches(source, root, pair_frames=0):
        first, second = batch.pair.first.image, batch.pair.second.image
        assert torch.equal(first[:, 2, 0, 0], second[:, 2, 0, 0])


def test_a_draw_depends_on_its_number_alone(source, root):
    """Whatever was drawn before: so a resumed training goes on with the same pairs."""
    draws = [data(source, root).train_dataloader().loader.dataset for _ in range(2)]
    once = [draws[0][number].content for number in range(6)]
    for number in (5, 2):
        again = draws[1][number].content
        assert torch.equal(again.pair.second.image, once[number].pair.second.image)
        assert moments(*again[1:]) == moments(*once[number][1:])


def test_a_negative_number_of_frames_is_refused():
    with pytest.raises(PipaError, match="pair_frames: is -1; expected at least 0"):
        UDAData("source", "target", pair_frames=-1)
