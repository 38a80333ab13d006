"""`pipa predict` on the folders that people have: broken files and strange formats."""

import re

import cv2
import numpy as np
import pytest
import torch
from builders import raw_png
from PIL import Image

import pipa as package
from pipa.files.images import read_label

GOOD = ("a.gif", "b.png", "c.png", "d.png", "e.png", "f.jpg")
FAULTY = ("x.jpg", "y.heic", "z.jpg")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "model"
    names = package.LabelSpace(("ground", "sky"), ((1, 2, 3), (4, 5, 6)))
    package.save_segmenter(package.create_segmenter("small", 2), folder, names)
    return folder


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    colours = rng.integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(colours).save(folder / "a.gif")
    (folder / "b.png").write_bytes(raw_png(colours[:1, :1]))
    (folder / "c.png").write_bytes(raw_png(rng.integers(0, 65536, (40, 50, 3)).astype(">u2")))
    (folder / "d.png").write_bytes(raw_png(colours[..., :1]))
    (folder / "e.png").write_bytes(raw_png(rng.integers(0, 256, (40, 50, 4), np.uint8)))
    cv2.imwrite(str(folder / "f.jpg"), colours)
    whole = (folder / "f.jpg").read_bytes()
    (folder / "x.jpg").write_bytes(whole[: len(whole) // 2])
    for name in ("y.heic", "z.jpg"):  # telephones give it either suffix
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_of_all_kinds_is_predicted_as_far_as_possible(pipa, model, photos, tmp_path):
    out = tmp_path / "out"
    done = pipa("predict", model, photos, "--out", out, "--on-error", "skip", "--write", "ids")
    assert done.code == 1
    assert sorted(path.name for path in out.rglob("*.*")) == [
        *(name if name == "f.jpg" else f"{name.split('.')[0]}.png" for name in GOOD[:-1]),
        "f.png",
    ]
    shapes = [read_label(path).shape for path in sorted(out.rglob("*.png"))]
    assert shapes == [(40, 50), (1, 1), *[(40, 50)] * 4]
    assert len(done.out.splitlines()) == len(GOOD)
    for name in (*FAULTY, "notes.txt"):
        assert done.err.count(name) == 1, done.err
    assert done.err.count("HEIC is not read. Convert it to JPEG or PNG first.") == 2
    assert "x.jpg: the file is truncated" in done.err
    assert re.search(r"6 images in \d:\d\d:\d\d", done.err)


def test_it_stops_at_the_first_fault_unless_told_otherwise(pipa, model, photos, tmp_path):
    done = pipa("predict", model, photos, "--out", tmp_path / "out", "--write", "ids")
    assert done.code == 2
    assert len(done.out.splitlines()) == len(GOOD), "what came before is written"
    assert done.err.startswith("pipa: ")
    assert done.err.count("\n") == 1
    assert "x.jpg" in done.err


def test_options_that_are_not_possible(pipa, model, photos):
    for option, message in {
        "--write=ids,masks": "masks",
        "--shard=3": "3; expected I/N",
        "--shard=5/4": "5/4; expected I/N",
        "--batch=0": "must be at least 1",
        "--scale=0": "above 0",
    }.items():
        done = pipa("predict", model, photos, option)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
