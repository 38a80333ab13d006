"""A few images of a target, for the judge and for the choice of the style."""

import builders
import pytest

from pipa.data.unlabelled import target_images
from pipa.errors import PipaError


def test_a_faulty_image_is_passed_over_and_nothing_but_faulty_ones_is_an_error(tmp_path):
    photos = builders.folder(tmp_path / "photos", 3, labelled=False)
    files = sorted((photos / "images").iterdir())
    files[0].write_bytes(b"no picture")
    skipped: list[PipaError] = []
    assert len(target_images(str(photos), 3, skipped=skipped)) == 2
    assert len(skipped) == 1
    for file in files:
        file.write_bytes(b"no picture")
    with pytest.raises(PipaError, match=r"photos: none of the 3 images that were looked at"):
        target_images(str(photos), 3, skipped=[])
