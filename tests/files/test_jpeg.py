"""JPEG is decoded to the bits of OpenCV, upright, and refused where its end is missing."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from pipa.errors import PipaError
from pipa.files.images import read_image

RNG = np.random.default_rng(0)
PHOTO = cv2.GaussianBlur(RNG.integers(0, 256, (53, 71, 3), dtype=np.uint8), (0, 0), 1.5)


def jpeg(mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(PHOTO).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def turned(orientation, order="<"):
    """A JPEG with an EXIF that holds nothing but the orientation."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    entry = struct.pack(f"{order}IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + mark + entry
    data = jpeg()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


@pytest.mark.parametrize(
    "data",
    [
        *(jpeg(quality=quality, subsampling=s) for quality in (30, 90) for s in (0, 1, 2)),
        jpeg(progressive=True),
        jpeg("L"),
        jpeg("CMYK"),
        jpeg() + b"left behind",
        *(turned(orientation) for orientation in range(10)),
        turned(6, ">"),
        turned(6)[:30] + b"\xff" + turned(6)[31:],
    ],
)
def test_the_pixels_are_those_of_opencv(tmp_path, data):
    (tmp_path / "a.jpg").write_bytes(data)
    want = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(read_image(tmp_path / "a.jpg"), want)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_picture_that_is_cut_off_is_refused_even_with_an_end(tmp_path, share, progressive):
    data = jpeg(progressive=progressive)
    (tmp_path / "a.jpg").write_bytes(data[: int(share * len(data))] + b"\xff\xd9")
    with pytest.raises(PipaError, match=r"a\.jpg: the file is truncated"):
        read_image(tmp_path / "a.jpg")


def test_a_png_that_is_cut_off_is_refused_even_with_an_end(tmp_path):
    data = cv2.imencode(".png", PHOTO)[1].tobytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2] + data[-12:])
    with pytest.raises(PipaError, match=r"a\.png: the file is truncated"):
        read_image(tmp_path / "a.png")


def test_what_follows_a_jpeg_does_not_make_it_cut_off(tmp_path):
    """Phones append a video to a photograph, whose bytes may look like marks of a JPEG."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg() + b"\0\0\0\x18ftypmp42" + b"\xff\xd9\0\xff\xda" + bytes(99))
    assert read_image(path).shape == PHOTO.shape
