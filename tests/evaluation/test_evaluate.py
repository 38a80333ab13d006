"""Scoring a model on labelled images: its classes and those of the data."""

import builders
import numpy as np
import pytest
import torch

import pipa
from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.files.images import read_image, read_label


@pytest.fixture
def data(tmp_path):
    """Two labelled images of the classes ground, water and forest."""
    return builders.folder(tmp_path / "data", 2)


def network(*names, count=None):
    torch.manual_seed(0)
    model = pipa.create_segmenter("small", count or len(names))
    model.labels = LabelSpace(names, ((90, 60, 40),) * len(names)) if names else None
    return model


def own_iou(model, data, *, names=("ground", "water", "forest"), predict=None):
    """IoU of each class of the data that is among the model's, by plain counting."""
    predict = predict or model.eval().predict
    places = [
        model.labels.names.index(name) if name in model.labels.names else 255 for name in names
    ]
    hit, either = np.zeros(len(names)), np.zeros(len(names))
    for path in sorted((data / "images").iterdir()):
        label = np.array(places)[read_label(data / "labels" / path.name)]
        ids = predict(read_image(path))[label != 255]
        for i, place in enumerate(places):
            hit[i] += ((ids == place) & (label[label != 255] == place)).sum()
            either[i] += ((ids == place) | (label[label != 255] == place)).sum()
    return {name: 100 * hit[i] / either[i] for i, name in enumerate(names) if places[i] != 255}


@pytest.mark.parametrize(
    "names",
    [
        ("forest", "water", "ground"),
        ("Water", "ground"),
        ("sky", "forest", "road", "water", "ground", "car"),
    ],
)
def test_labels_go_to_the_models_classes_by_name(data, caplog, names):
    model = network(*names)
    result = pipa.evaluate(model, data)
    want = own_iou(network(*map(str.lower, names)), data)
    assert {name.lower(): iou for name, iou in result.iou.items()} == pytest.approx(want)
    assert list(result.iou) == [name for name in names if name.lower() in want]
    assert result.miou == pytest.approx(np.mean(list(want.values())))
    assert ("pixels of forest are left out" in caplog.text) == (len(names) == 2)


def test_classes_that_are_given_are_matched_by_name_too(data):
    model = network("ground", "water", "forest")
    (data / "classes.yaml").unlink()
    result = pipa.evaluate(model, data, classes="forest,water,ground")
    assert result.iou == pytest.approx(own_iou(model, data, names=("forest", "water", "ground")))


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (network("sky", "road", "car"), r"none of its classes \(ground, water, forest, .*model's"),
        (network(count=4), "has 3 classes, the model 4 without names"),
    ],
)
def test_a_model_that_has_nothing_in_common_with_the_data_is_refused(data, model, problem):
    with pytest.raises(PipaError, match=problem):
        pipa.evaluate(model, data)


def test_without_names_the_number_of_classes_decides(data):
    named = pipa.evaluate(network("ground", "water", "forest"), data)
    assert pipa.evaluate(network(count=3), data).iou == named.iou


@pytest.mark.parametrize(
    ("given", "remembered"), [({"scale": 0.5}, None), ({}, (24, 32)), ({"scale": 0.5}, (12, 12))]
)
def test_half_the_size_is_for_the_network_and_labels_keep_theirs(data, given, remembered):
    """As the papers score: logits are brought to the label's size before the class is chosen."""
    model = network("ground", "water", "forest")
    model.resize = remembered

    def at_half(image):
        """Four pixels become their mean, a whole number where the user asks for the scale."""
        rgb = torch.tensor(image).movedim(-1, 0)[None].int()
        four = rgb.unflatten(2, (24, 2)).unflatten(4, (32, 2)).sum(dim=(3, 5))
        small = ((four + 2) // 4 if given else four / 4) / 255
        logits = torch.nn.functional.interpolate(model(small), (48, 64), mode="bilinear")
        return logits.argmax(1)[0].numpy()

    found = pipa.evaluate(model, data, **given).iou
    assert found == pytest.approx(own_iou(model.eval(), data, predict=at_half), abs=0.1)
    assert found != pytest.approx(own_iou(model, data, predict=lambda one: slow(model, one)), abs=1)


def slow(model, image):
    return model(torch.tensor(image).movedim(-1, 0)[None] / 255).argmax(1)[0].numpy()


def test_images_that_were_fitted_already_are_not_scaled_again(data):
    model = network("ground", "water", "forest")
    alone = pipa.evaluate(model, data, resize=(24, 32))
    model.resize = (12, 16)
    assert pipa.evaluate(model, data, resize=(24, 32)).iou == alone.iou
