"""The names of `pipa`: each is explained by an example, and the examples run as they stand."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from builders import folder

import pipa
from pipa.files.images import read_image

WITH_EXAMPLE = (
    *("adapt", "train", "load_segmenter", "predict", "compare"),
    *("create_segmenter", "losses", "PixelTerm", "PatchTerm", "Wrapped"),
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Folders, a photo and a finished run, as the examples name them."""
    desk = tmp_path_factory.mktemp("desk")
    folder(desk / "synthetic", 4)
    folder(desk / "photos", 4, labelled=False, classes="", shift=25, seed=50)
    folder(desk / "labelled", 2, shift=25, seed=90)
    image = read_image(desk / "photos" / "images" / "000.png")
    cv2.imwrite(str(desk / "photo.jpg"), image[..., ::-1])
    pipa.adapt(
        *(desk / "synthetic", desk / "photos"),
        validation=desk / "labelled",
        out=desk / "runs" / "mine",
        **{"network": "small", "steps": 3, "crop": 32, "batch_size": 2, "device": "cpu"},
        quiet=True,
    )
    return desk


def examples(thing, name):
    found = doctest.DocTestFinder(recurse=False).find(thing, name, module=False)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_the_example_of_a_docstring_runs(name, desk, monkeypatch):
    monkeypatch.chdir(desk)
    (test,) = examples(getattr(pipa, name), name)
    test.globs.update(pipa=pipa, torch=torch, np=np, Path=Path)
    said: list[str] = []
    failed = doctest.DocTestRunner().run(test, out=said.append).failed
    assert not failed, "".join(said)


def test_dir_is_the_table_of_contents_and_nothing_heavy_is_imported_for_it():
    code = (
        "import sys, pipa\n"
        "assert {'adapt', 'train', 'predict', 'evaluate', 'compare', 'losses'} <= set(dir(pipa))\n"
        "assert set(pipa.__all__) <= set(dir(pipa))\n"
        "assert not {'torch', 'lightning', 'cv2', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="adopt"):
        pipa.adopt  # noqa: B018
    assert importlib.import_module("pipa") is pipa
