"""Rare class sampling against the authors' numbers and rules, and its file of statistics."""

import os
from collections import Counter

import numpy as np
import pytest
from builders import folder, mosaic

from data.golden import RECORD
from pipa.data.dataset import open_labelled
from pipa.data.labels import count_pixels
from pipa.data.rare_classes import (
    ClassCounts,
    RareClasses,
    absent,
    class_counts,
    class_probabilities,
    rare_classes,
)
from pipa.errors import PipaError
from pipa.files.images import read_label, write_png


@pytest.fixture
def table():
    """The authors' statistics as counts."""
    counts = np.zeros((len(RECORD["rcs"]["table"]), 19), np.int64)
    for row, entry in zip(counts, RECORD["rcs"]["table"], strict=True):
        for name, pixels in entry.items():
            if name != "file":
                row[int(name)] = pixels
    return counts


def of_gta5(pixels):
    """Counts of images of GTA5's size."""
    return ClassCounts(pixels, np.full(len(pixels), 1914 * 1052))


@pytest.mark.parametrize("temperature", ["0.01", "0.1", "0.5"])
def test_probabilities_are_the_authors(table, temperature):
    want = RECORD["rcs"]["probs"][temperature]
    got = class_probabilities(table, float(temperature))
    assert got[want["classes"]] == pytest.approx(want["probs"], rel=1e-4)
    assert got.sum() == pytest.approx(1)


def test_draws_follow_the_probabilities_and_the_authors_choice_of_images(table):
    rare = RareClasses(of_gta5(table), 0.1, min_pixels=3000)
    rng = np.random.default_rng(0)
    drawn = [rare.draw(rng) for _ in range(20_000)]
    shares = Counter(chosen for _, chosen, _ in drawn)
    want = class_probabilities(table, 0.1)
    for k in range(19):
        assert abs(shares[k] / 20_000 - want[k]) < 5 * np.sqrt(want[k] / 20_000) + 1e-9
    of = {k: {image for image, chosen, _ in drawn if chosen == k} for k in range(19)}
    for k in (12, 17, 18):
        assert of[k] == {i for i in range(len(table)) if table[i, k] > 3000}
    for draw in RECORD["rcs"]["draws"]:
        eligible = RareClasses(of_gta5(table), draw["temp"], draw["min_pixels"])._tables[2]
        assert draw["source_calls"][0][0] in eligible[draw["cls"]]


def test_a_class_of_which_no_image_has_enough_needs_less():
    counts = of_gta5(np.array([[9000, 700, 5, 0], [9000, 90, 1, 0]]))
    rare = RareClasses(counts, 0.5, min_pixels=3000)
    assert rare.thresholds().tolist() == [3000, 375, 2, 0]
    rng = np.random.default_rng(0)
    assert {rare.draw(rng)[:2] for _ in range(300)} == {(0, 0), (1, 0), (0, 1), (0, 2)}
    assert absent(counts.pixels, "abcd") == ["d"]


@pytest.mark.parametrize(("images_with_it", "half"), [(1, 1), (4, 2), (100, 50)])
def test_few_images_that_make_up_half_of_all_draws_are_counted(images_with_it, half):
    pixels = np.full((100, 2), 10_000)
    pixels[:, 1] = 0
    pixels[:images_with_it, 1] = 5000
    rare = RareClasses(of_gta5(pixels))
    found, rarest = rare.half_of_all()
    assert rarest == 1
    rng = np.random.default_rng(0)
    drawn = Counter(rare.draw(rng)[0] for _ in range(20_000)).most_common(half)
    assert sum(n for _, n in drawn) / 20_000 > 0.45
    assert found == half


@pytest.mark.parametrize("few", [True, False])
def test_a_line_says_that_few_images_are_nearly_all_that_is_drawn(tmp_path, caplog, few):
    images, labels = open_labelled(str(folder(tmp_path, count=12)))
    rare = np.zeros((48, 64), np.uint8)
    for i in range(12):
        rare[:20, :20] = 2 if i == 3 or not few else 0
        rare[40:] = 1
        write_png(tmp_path / "labels" / f"{i:03}.png", rare)
    rare_classes(images, labels.names, 0.01)
    line = f"half of all crops from 1 of 12 source images, most of them for {labels.names[2]}"
    assert (line in caplog.text) is few


def test_small_images_need_less_in_proportion():
    large, small = np.full((2, 2), 1914 * 1052 // 2), np.full((2, 2), 64 * 64 // 2)
    assert RareClasses(of_gta5(large)).thresholds().tolist() == [3000, 3000]
    assert RareClasses(ClassCounts(small, small.sum(1))).thresholds().tolist() == [6, 6]


def test_small_means_a_small_image_and_not_one_with_few_labels(tmp_path):
    """Where nine tenths of GTA5-sized labels are 255, 3000 pixels are needed as ever."""
    few = np.full((2, 2), 1914 * 1052 // 20)
    assert RareClasses(of_gta5(few)).thresholds().tolist() == [3000, 3000]
    unread = ClassCounts(few, np.array([1914 * 1052, 0]))
    assert RareClasses(unread).thresholds().tolist() == [3000, 3000]

    root = folder(tmp_path)
    label = mosaic(0).astype(np.uint8)
    label[:, 7:] = 255
    write_png(root / "labels" / "000.png", label)
    images, labels = open_labelled(str(root))
    counts = class_counts(images, labels.names)
    assert counts.area.tolist() == [48 * 64] * 4
    assert counts.pixels[0].sum() == 48 * 7
    again = class_counts(images, labels.names)
    assert all(np.array_equal(one, other) for one, other in zip(again, counts, strict=True))


def test_a_data_set_without_any_class_is_refused():
    with pytest.raises(PipaError, match="no label holds a pixel of any class"):
        class_probabilities(np.zeros((3, 2), int), 0.1)


def test_pixels_are_counted_exactly(tmp_path):
    images, labels = open_labelled(str(folder(tmp_path)))
    counts = class_counts(images, labels.names)
    for i in range(4):
        label = read_label(tmp_path / "labels" / f"{i:03}.png")
        assert counts.pixels[i].tolist() == [int((label == k).sum()) for k in range(3)]
    many = np.full((5000, 4000), 7, np.uint8)  # more than float32 can count
    many[:1000] = 255
    many[-1, -3:] = 1
    assert count_pixels(many, 19)[[1, 7]].tolist() == [3, 4000 * 4000 - 3]


def test_statistics_are_kept_until_the_labels_or_the_classes_change(tmp_path):
    images, labels = open_labelled(str(folder(tmp_path / "data")))
    first = class_counts(images, labels.names)
    (kept,) = (tmp_path / "data" / ".pipa").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])  # a half-written file is not believed
    assert np.array_equal(class_counts(images, labels.names).pixels, first.pixels)
    np.savez_compressed(kept, pixels=first.pixels + 1, area=first.area)
    again = class_counts(images, labels.names).pixels
    assert np.array_equal(again, first.pixels + 1), "the file is used"
    np.savez_compressed(kept, counts=first.pixels + 1)  # of an older version
    assert np.array_equal(class_counts(images, labels.names).pixels, first.pixels)

    label = tmp_path / "data" / "labels" / "000.png"
    write_png(label, np.zeros((48, 64), np.uint8))
    os.utime(label, ns=(1, 1))
    assert class_counts(images, labels.names).pixels[0].tolist() == [48 * 64, 0, 0]
    (tmp_path / "data" / "classes.yaml").write_text("[a, b, c, d]")
    images, labels = open_labelled(str(tmp_path / "data"))
    assert class_counts(images, labels.names).pixels.shape == (4, 4)


def test_beside_read_only_data_the_users_cache_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPA_CACHE", str(tmp_path / "cache"))
    root = folder(tmp_path / "data")
    root.chmod(0o555)
    images, labels = open_labelled(str(root))
    first = class_counts(images, labels.names)
    assert not (root / ".pipa").exists()
    (kept,) = (tmp_path / "cache" / "class_counts").iterdir()
    np.savez_compressed(kept, pixels=first.pixels + 1, area=first.area)
    assert np.array_equal(class_counts(images, labels.names).pixels, first.pixels + 1)


def test_a_faulty_label_is_raised_or_counts_as_empty(tmp_path):
    root = folder(tmp_path)
    (root / "labels" / "001.png").write_bytes(b"")
    images, labels = open_labelled(str(root))
    with pytest.raises(PipaError, match=r"001\.png: the file is empty"):
        class_counts(images, labels.names)
    skipped = []
    assert class_counts(images, labels.names, skipped).pixels[1].tolist() == [0, 0, 0]
    assert len(skipped) == 1
    assert not (root / ".pipa").exists(), "nothing is kept that hides a fault"
