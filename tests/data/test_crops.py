"""Geometry of crops: the authors' numbers, OpenCV's whole resize, counting all possibilities."""

from collections import Counter

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.golden import ARRAYS, RECORD
from pipa.data import crops
from pipa.files.images import fit_size

SIDES = st.integers(20, 90)


def test_sizes_after_resizing_are_the_authors():
    for (w, h), (long, short), (want_w, want_h) in RECORD["resize_sizes"]["w_h"]:
        assert fit_size((h, w), (short, long)) == (want_h, want_w)
        assert fit_size((h, w), (long, short)) == (want_h, want_w)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_resized_images_and_labels_are_the_authors(case):
    image, label = ARRAYS["resize/in_img"], ARRAYS["resize/in_lab"]
    w, h = RECORD["resize"][case]["scale"]
    size = fit_size(image.shape[:2], (h, w))
    assert np.array_equal(crops.cut_label(label, size, (0, 0), size), ARRAYS[f"resize/{case}/lab"])
    got = crops.cut_image(image, size, (0, 0), size)
    assert abs(got.astype(int) - ARRAYS[f"resize/{case}/img"]).max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    have=st.tuples(SIDES, SIDES),
    want=st.tuples(SIDES, SIDES),
    at=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    crop=st.tuples(st.integers(5, 19), st.integers(5, 19)),
)
def test_a_region_is_the_crop_of_the_whole_resized_image(have, want, at, crop):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (*have, 3), dtype=np.uint8), (3, 3), 1)
    label = rng.integers(0, 256, have, dtype=np.uint8)
    corner = tuple(int(p * (n - c)) for p, n, c in zip(at, want, crop, strict=True))
    rows, columns = (slice(s, s + c) for s, c in zip(corner, crop, strict=True))

    whole = cv2.resize(label, want[::-1], interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(crops.cut_label(label, want, corner, crop), whole[rows, columns])
    whole = cv2.resize(image, want[::-1])
    part = crops.cut_image(image, want, corner, crop)
    assert part.shape == (*crop, 3)
    assert abs(part.astype(int) - whole[rows, columns]).max() <= 6, "1/32 pixel at most"


def test_crops_with_too_much_of_one_class_are_drawn_again_as_by_the_authors():
    label = ARRAYS["crop/lab"]
    for case in RECORD["random_crop"]:
        boxes = iter(case["boxes_y1y2x1x2"])

        def draw(boxes=boxes):
            y1, y2, x1, x2 = next(boxes)
            return (y1, x1), label[y1:y2, x1:x2]

        (top, left), part = crops.pick_varied(draw, case["cat_max_ratio"])
        assert [top, top + part.shape[0], left, left + part.shape[1]] == case["used"]
        assert next(boxes, None) is None, "not one crop less than the authors draw"


def test_after_ten_refusals_the_next_crop_is_taken():
    drawn = []

    def draw():
        drawn.append(len(drawn))
        return (len(drawn), 0), np.zeros((4, 4), np.uint8)

    assert crops.pick_varied(draw, 0.75)[0] == (11, 0)


@settings(max_examples=30, deadline=None)
@given(most=st.floats(0.4, 0.95), seed=st.integers(0, 1000))
def test_no_class_has_more_than_its_share(most, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, (40, 40)).astype(np.uint8)
    label[:20] = 255
    label[:, 20:] = 0

    def draw():
        top, left = crops.draw_corner(rng, label.shape, (10, 10))
        return (top, left), label[top : top + 10, left : left + 10]

    tried, parts = 0, []

    def counted():
        nonlocal tried
        tried += 1
        parts.append(draw())
        return parts[-1]

    _, part = crops.pick_varied(counted, most)
    counts = Counter(part[part != 255].tolist())
    fine = len(counts) > 1 and max(counts.values()) / sum(counts.values()) < most
    assert fine or tried == 11


def test_corners_are_uniform_over_all_that_fit():
    rng = np.random.default_rng(0)
    draws = Counter(crops.draw_corner(rng, (8, 10), (5, 4)) for _ in range(28_000))
    assert set(draws) == {(y, x) for y in range(4) for x in range(7)}
    spread = np.array(list(draws.values())) - 1000
    assert abs(spread).max() < 5 * np.sqrt(1000)
    assert crops.draw_corner(rng, (4, 4), (9, 9)) == (0, 0)


def test_margins_are_the_authors():
    for case in RECORD["valid_pseudo_mask"]:
        margins = tuple(case["margins_top_bottom_left_right"])
        whole = crops.cut_valid(margins, (1024, 2048), (1024, 2048), (0, 0), (1024, 2048))
        assert whole.sum() == case["ones"]
        half = crops.cut_valid(margins, (1024, 2048), (512, 1024), (0, 0), (512, 1024))
        rows, columns = np.flatnonzero(half.any(1)), np.flatnonzero(half.any(0))
        assert [rows[0], rows[-1]] == case["after_resize_1024x512"]["rows"]
        assert [columns[0], columns[-1]] == case["after_resize_1024x512"]["cols"]
        part = crops.cut_valid(margins, (1024, 2048), (512, 1024), (300, 40), (200, 200))
        assert np.array_equal(part, half[300:500, 40:240]), "margins of the image, not of the crop"


def test_pairs_are_uniform_over_all_that_meet_the_bounds():
    size, crop, bounds, stride = (9, 8), (5, 4), (0.2, 0.7), 2
    corners = [(y, x) for y in range(5) for x in range(5)]

    def share(a, b):
        shared = max(0, 5 - abs(a[0] - b[0])) * max(0, 4 - abs(a[1] - b[1]))
        return shared / (40 - shared)

    allowed = {
        (a, b)
        for a in corners
        for b in corners
        if (a[0] - b[0]) % stride == 0 == (a[1] - b[1]) % stride
        and bounds[0] <= share(a, b) <= bounds[1]
    }
    rng = np.random.default_rng(0)
    draws = Counter(
        crops.draw_pair(rng, size, crop, bounds, stride) for _ in range(200 * len(allowed))
    )
    assert set(draws) == allowed
    assert abs(np.array(list(draws.values())) - 200).max() < 5 * np.sqrt(200)


def test_where_no_pair_meets_the_bounds_there_is_none():
    rng = np.random.default_rng(0)
    assert crops.draw_pair(rng, (10, 10), (9, 9), (0.1, 0.3), 8) is None
    assert crops.draw_pair(rng, (10, 10), (11, 9), (0.1, 1.0), 8) is None
    assert crops.draw_pair(rng, (10, 10), (10, 10), (0.1, 1.0), 8) == ((0, 0), (0, 0))


def test_padding_adds_what_is_missing_below_and_to_the_right():
    image, label = np.ones((3, 4, 3), np.uint8), np.ones((3, 4), np.uint8)
    padded = crops.pad_image(image, (5, 6))
    assert padded.shape == (5, 6, 3)
    assert (padded[3:] == [124, 116, 104]).all()
    assert (padded[:3, :4] == 1).all()
    assert crops.pad_plane(label, (5, 4), 255).tolist() == [[1] * 4] * 3 + [[255] * 4] * 2
    assert crops.pad_image(image, (2, 2)) is image
