"""`pipa.Predictor`: a function of batches that travels to other processes."""

import pickle

import numpy as np
import pytest
from test_predict import picture
from tiny import Strongest

import pipa
from pipa.errors import PipaError


def test_a_batch_gets_its_class_ids_and_keeps_its_columns():
    images = np.stack([picture(i) for i in range(5)])
    predictor = pipa.Predictor(Strongest(), outputs=["ids", "confidence"], batch=2)
    found = predictor({"image": images, "path": np.array(list("abcde"))})
    assert list(found) == ["image", "path", "ids", "confidence"]
    np.testing.assert_array_equal(found["ids"], images.argmax(3))
    assert (found["ids"].dtype, found["confidence"].shape) == (np.uint8, (5, 20, 30))


def test_images_may_have_sizes_of_their_own_and_be_grey():
    images = [picture(0, (7, 5)), picture(1, (20, 30)), picture(2, (7, 5)), picture(3)[..., 0]]
    column = pipa.Predictor(Strongest())({"image": images})["ids"]
    assert [ids.shape for ids in column] == [(7, 5), (20, 30), (7, 5), (20, 30)]
    for image, ids in zip(images[:3], column, strict=False):
        np.testing.assert_array_equal(ids, image.argmax(2))
    assert len(pipa.Predictor(Strongest())({"image": np.empty((0, 4, 4, 3), np.uint8)})["ids"]) == 0


def test_it_travels_with_its_network_or_with_its_name(tmp_path):
    model = pipa.create_segmenter("small", 3).eval()
    pipa.save_segmenter(model, tmp_path / "model")
    batch = {"image": np.stack([picture(0, (40, 50))])}
    expected = model.predict(batch["image"][0])
    for given in (model, tmp_path / "model", str(tmp_path / "model")):
        predictor = pipa.Predictor(given, scale=1.0)
        for _ in range(2):  # before its first batch, and after it
            predictor = pickle.loads(pickle.dumps(predictor))
            np.testing.assert_array_equal(predictor(batch)["ids"][0], expected)


def test_what_it_cannot_take_is_said():
    predictor = pipa.Predictor(Strongest())
    with pytest.raises(PipaError, match=r"no column image \(it has bytes, path\)"):
        predictor({"bytes": [], "path": []})
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(PipaError, match=r"expected uint8 \(h, w, 3\) or \(h, w\)"):
            predictor({"image": [wrong]})
    with pytest.raises(PipaError, match=r"\['masks'\]; expected some of ids"):
        pipa.Predictor(Strongest(), outputs=["masks"])
    with pytest.raises(PipaError, match="at least 1"):
        pipa.Predictor(Strongest(), batch=0)
