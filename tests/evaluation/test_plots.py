"""Figures: their contents, their reproducibility, and colours that people can distinguish."""

import math
from itertools import combinations
from xml.etree import ElementTree

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.evaluation.plots import (
    PALETTE,
    class_bars,
    curves,
    for_dark,
    picture,
    running_mean,
)
from pipa.files.paint import colourise, distinct_colours, overlay

LOSSES = {
    "source": {"source-only": [(0, 2.0), (50, 1.0)], "PiPa": [(0, 2.1), (50, 0.9)]},
    "patch": {"PiPa": [(i, 1 / (i + 1)) for i in range(60)]},
    "pixel": {"PiPa": [(0, math.nan), (50, 0.3)]},
}
SCORES = {"source-only": {"sky": 60.0, "car": None}, "PiPa": {"sky": 70.0, "car": None}}
GROUND = {"light": "#ffffff", "dark": "#1c2026"}


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def test_curves_draw_each_method_in_its_colour():
    svg = curves(LOSSES, methods=["source-only", "PiPa"], smooth=True, floor=0.0)
    dark = for_dark(svg)
    for theme, drawn in {"light": svg, "dark": dark}.items():
        ElementTree.fromstring(drawn)
        for colour in PALETTE[theme][:2]:
            assert colour.encode() in drawn
        assert PALETTE[theme][2].encode() not in drawn
    assert not any(colour.encode() in dark for colour in PALETTE["light"])
    assert svg == curves(LOSSES, methods=["source-only", "PiPa"], smooth=True, floor=0.0)


def test_a_method_keeps_its_colour_where_it_is_drawn_alone():
    methods = ["source-only", "PiPa"]
    alone = {"PiPa": SCORES["PiPa"]}
    for svg in (
        class_bars(alone, methods=methods),
        curves(LOSSES | {"source": {}}, methods=methods),
    ):
        assert PALETTE["light"][1].encode() in svg
        assert PALETTE["light"][0].encode() not in svg


def test_a_single_curve_and_none():
    ElementTree.fromstring(curves({"": {"PiPa": [(0, 1.0), (1, 2.0)]}}))
    ElementTree.fromstring(curves({}))


def test_bars_leave_out_classes_that_occur_nowhere():
    with_car = {name: scores | {"car": 10.0} for name, scores in SCORES.items()}
    short, tall = (
        float(ElementTree.fromstring(class_bars(values)).attrib["height"].removesuffix("pt"))
        for values in (SCORES, with_car)
    )
    assert short < tall
    ElementTree.fromstring(class_bars({}))


def test_global_settings_stay_as_they_were():
    before = dict(mpl.rcParams)
    class_bars(SCORES)
    assert dict(mpl.rcParams) == before


def luminance(colour):
    """Relative luminance of WCAG 2.1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_of_graphics(theme):
    ground = luminance(GROUND[theme])
    for colour in PALETTE[theme]:
        low, high = sorted((ground, luminance(colour)))
        assert (high + 0.05) / (low + 0.05) >= 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-10, 10) | st.just(math.nan), max_size=20), st.integers(1, 6))
def test_running_mean_is_the_mean_of_the_last_values(values, window):
    for i, mean in enumerate(running_mean(values, window)):
        last = [v for v in values[max(0, i + 1 - window) : i + 1] if not math.isnan(v)]
        expected = sum(last) / len(last) if last else math.nan
        assert mean == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_pictures_keep_every_pixel():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    np.testing.assert_array_equal(decoded(picture(image))[..., 2::-1], image)
    smooth = np.broadcast_to(np.arange(0, 128, 2, dtype=np.uint8)[:, None, None], (64, 48, 3))
    photo = decoded(picture(np.ascontiguousarray(smooth), form="jpeg"))
    assert np.abs(photo.astype(int) - smooth).max() <= 4


def test_colours_of_ids_and_black_for_none():
    ids = np.array([[0, 1], [255, 7]], np.uint8)
    painted = colourise(ids, [(1, 2, 3), (4, 5, 6)])
    assert painted.tolist() == [[[1, 2, 3], [4, 5, 6]], [[0, 0, 0], [0, 0, 0]]]


def test_an_overlay_mixes_and_leaves_pixels_without_a_class():
    image = np.full((1, 3, 3), 100, np.uint8)
    ids = np.array([[0, 1, 255]], np.int64)
    mixed = overlay(image, ids, [(0, 0, 0), (200, 100, 0)], alpha=0.25)
    assert mixed[0].tolist() == [[75, 75, 75], [125, 100, 75], [100, 100, 100]]


def test_made_up_colours_differ():
    colours = np.array(distinct_colours(40), int)
    distance = min(np.abs(a - b).sum() for a, b in combinations(colours, 2))
    assert distance >= 20
