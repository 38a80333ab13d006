"""A few images of a target, for the judge and for the choice of the style."""

import builders
import numpy as np
import pytest

from pipa.data.unlabelled import each_image
from pipa.errors import PipaError


def test_a_faulty_image_is_passed_over_and_nothing_but_faulty_ones_is_an_error(tmp_path):
    photos = builders.folder(tmp_path / "photos", 3, labelled=False)
    files = sorted((photos / "images").iterdir())
    files[0].write_bytes(b"no picture")
    skipped: list[PipaError] = []
    assert len(list(each_image(str(photos), 3, skipped=skipped))) == 2
    assert len(skipped) == 1
    for file in files:
        file.write_bytes(b"no picture")
    with pytest.raises(PipaError, match=r"photos: none of the 3 images that were looked at"):
        list(each_image(str(photos), 3, skipped=[]))


def test_of_large_images_parts_are_taken_each_at_another_place(tmp_path):
    photos = str(builders.folder(tmp_path / "photos", 4, labelled=False, size=(48, 64)))
    whole = list(each_image(photos, 4))
    parts = list(each_image(photos, 4, crop=(4, 20)))
    places = []
    for image, part in zip(whole, parts, strict=True):
        assert part.shape == (20, 64, 3)
        rows = [top for top in range(29) if (image[top : top + 20] == part).all()]
        assert len(rows) == 1
        places += rows
    assert len(set(places)) > 1
    assert all(map(np.array_equal, parts, list(each_image(photos, 4, crop=(4, 20)))))
    halved = list(each_image(photos, 1, resize=(24, 32), crop=(4, 4)))
    assert halved[0].shape == (20, 20, 3)
