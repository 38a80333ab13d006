"""`Segmenter.predict` takes what people have, and says in one line what it takes."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import pipa
from pipa import PipaError
from pipa.files.images import read_image, write_png


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return pipa.create_segmenter("small", num_classes=4)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)


def test_every_form_of_an_image_gives_the_same_ids(model, image, tmp_path):
    write_png(tmp_path / "image.png", image)
    ids = model.predict(image)
    assert (ids.shape, ids.dtype) == ((40, 56), np.uint8)
    assert len(np.unique(ids)) > 1
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    for form in (
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        Image.fromarray(image),
        Image.fromarray(image).convert("RGBA"),
        tensor,
        image[:, ::-1][:, ::-1],  # negative strides
    ):
        np.testing.assert_array_equal(model.predict(form), ids)


def test_of_sixteen_bits_the_upper_ones_are_seen(model, image, tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), image[..., 0].astype(np.uint16) * 256 + 77)
    ids = model.predict(tmp_path / "deep.png")
    assert len(np.unique(ids)) > 1
    np.testing.assert_array_equal(model.predict(Image.open(tmp_path / "deep.png")), ids)
    with pytest.raises(PipaError, match="mode F is no image"):
        model.predict(Image.fromarray(image[..., 0].astype(np.float32)))


def test_a_batch_is_what_its_images_are(model, image):
    batch = np.stack([image, image[::-1]])
    expected = np.stack([model.predict(one) for one in batch])
    np.testing.assert_array_equal(model.predict(batch), expected)
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
    np.testing.assert_array_equal(model.predict(tensor), expected)
    assert model.predict(batch[:1]).shape == (1, 40, 56)


def test_a_list_may_hold_any_forms_and_sizes(model, image):
    found = model.predict([image, Image.fromarray(image[:33])])
    assert [ids.shape for ids in found] == [(40, 56), (33, 56)]
    assert model.predict([]) == []


def test_a_photo_is_turned_as_its_camera_says(model, image, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(image).save(tmp_path / "photo.jpg", exif=exif, quality=100)
    ids = model.predict(tmp_path / "photo.jpg")
    assert ids.shape == read_image(tmp_path / "photo.jpg").shape[:2] == (56, 40)
    assert model.predict(Image.open(tmp_path / "photo.jpg")).shape == (56, 40)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((40, 56, 3)), "float64 array of shape (40, 56, 3)"),
        (np.zeros((40, 56), np.uint8), "uint8 array of shape (40, 56)"),
        (np.zeros((3, 40, 56), np.uint8), "uint8 array of shape (3, 40, 56)"),
        (np.zeros((0, 56, 3), np.uint8), "(0, 56, 3)"),
        (torch.zeros(40, 56, 3), "tensor of shape (40, 56, 3)"),
        (torch.zeros(3, 40, 56, dtype=torch.uint8), "uint8 tensor"),
        (torch.full((3, 40, 56), 200.0), "values from 200 to 200"),
        (torch.full((3, 40, 56), torch.nan), "nan"),
        (42, "a int is no image"),
        (None, "NoneType"),
        ({"image": 1}, "a dict is no image"),
    ],
)
def test_anything_else_is_refused_in_one_line(model, given, said):
    with pytest.raises(PipaError) as refused:
        model.predict(given)
    assert said in str(refused.value)
    assert "Give a path, a PIL image" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(model, tmp_path):
    with pytest.raises(PipaError, match=r"nothing\.png"):
        model.predict(tmp_path / "nothing.png")
