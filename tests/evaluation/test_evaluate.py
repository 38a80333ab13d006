"""Scoring a model on labelled images: its classes and those of the data."""

import builders
import pytest

import pipa
from pipa.classes import LabelSpace
from pipa.errors import PipaError


def test_the_models_classes_in_another_order_are_refused(tmp_path):
    data = str(builders.folder(tmp_path / "data", 1))
    model = pipa.create_segmenter("small", 3)
    model.labels = LabelSpace(("ground", "water", "forest"), ((90, 60, 40),) * 3)
    with pytest.raises(PipaError, match=r"its classes \(forest, water, ground, ...\) are not"):
        pipa.evaluate(model, data, classes="forest,water,ground")
    own = pipa.evaluate(model, data)
    assert set(own.iou) == {"ground", "water", "forest"}
    assert pipa.evaluate(model, data, classes="ground,water,forest").iou == own.iou
