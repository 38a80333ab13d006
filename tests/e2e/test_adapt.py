"""`pipa adapt`: from two folders to a model, a verdict and a report."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders import folder

import pipa as package
from pipa.cli.training import ADAPT_HELP
from pipa.files.images import read_image
from pipa.files.installed import NUCLEI
from pipa.run.adapt import adapt

QUICK = ("--network=small", "--steps=4", "--crop=32", "--batch-size=2", "--device=cpu")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folders `synthetic`, `photos` and `labelled`, where commands are typed."""
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "synthetic", 4)
    folder(tmp_path / "photos", 4, labelled=False, classes="", shift=25, seed=50)
    folder(tmp_path / "labelled", 2, classes="", shift=25, seed=90)
    return tmp_path


def test_two_folders_become_a_model_a_verdict_and_a_report(pipa, folders):
    done = pipa("adapt", "synthetic", "photos", "--validation", "labelled", *QUICK)
    assert done.code == 0, done.err
    said = done.out.splitlines()
    assert [line.split()[0] for line in said[:5]] == [
        *("data", "recipe", "network", "crop", "length"),
    ]
    assert "4 labelled images (48x64), 3 classes; 4 to adapt to" in said[0]
    assert "Judged without labels" in done.out
    assert "mean" in done.out
    run = folders / "runs" / "synthetic-to-photos"
    results = json.loads((run / "results.json").read_text())
    assert results["judgement"]["words"] in done.out
    assert "On the labelled images the adapted model has" in done.out
    better = results["miou"] >= results["source_only"]["miou"]
    assert results["judgement"]["kept"] == ("adapted" if better else "source_only")
    assert results["miou"] is not None
    page = (run / "report.html").read_text()
    assert "Judged without labels" in page
    image = next((folders / "photos" / "images").iterdir())
    assert pipa("predict", run, image, "--out", "predictions").code == 0
    again = pipa("adapt", "synthetic", "photos", *QUICK)
    assert again.code == 0, again.err
    assert (folders / "runs" / "synthetic-to-photos-2" / "report.html").is_file()
    taken = pipa("adapt", "synthetic", "photos", *QUICK, "--out", run)
    assert taken.code == 2
    assert f"pipa train --resume {run}" in taken.err
    assert pipa("train", "--resume", run, "--trainer.max_steps=5").code == 0


def test_python_has_the_same_and_a_model_to_use(folders, capsys):
    given = {"network": "small", "steps": 4, "crop": 32, "batch_size": 2, "device": "cpu"}
    run = adapt(folders / "synthetic", folders / "photos", out="mine", quiet=True, **given)
    assert capsys.readouterr().out == ""
    image = next((folders / "photos" / "images").iterdir())
    saved = package.load_segmenter(run.folder)
    np.testing.assert_array_equal(
        run.model.predict(read_image(image)), saved.predict(read_image(image))
    )
    assert run.verdict
    assert run.result is None


@pytest.mark.parametrize("role", ["synthetic", "photos", "labelled"])
def test_a_faulty_file_of_any_data_set_is_named_before_training(pipa, folders, role):
    images = sorted((folders / role / "images").iterdir())
    images[1].write_bytes(images[1].read_bytes()[:300])
    given = ("adapt", "synthetic", "photos", "--validation", "labelled", *QUICK)
    done = pipa(*given)
    assert done.code == 2
    assert images[1].name in done.err
    assert "--on-error skip" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (folders / "runs").exists()
    assert pipa(*given, "--on-error=skip").code == 0


def test_an_image_without_a_label_can_be_skipped(pipa, folders, caplog):
    label = next((folders / "synthetic" / "labels").iterdir())
    label.unlink()
    given = ("adapt", "synthetic", "photos", *QUICK)
    done = pipa(*given)
    assert done.code == 2
    assert "has no label" in done.err
    done = pipa(*given, "--on-error=skip")
    assert done.code == 0
    assert label.name in caplog.text
    judged = pipa("judge", "runs/synthetic-to-photos")
    assert judged.code == 0, judged.err


def test_labels_without_an_image_do_not_make_the_images_faulty(pipa, folders):
    labels = folders / "synthetic" / "labels"
    for number in range(20):
        shutil.copy(labels / "000.png", labels / f"spare{number}.png")
    assert pipa("adapt", "synthetic", "photos", *QUICK, "--on-error=skip").code == 0


def test_labels_of_the_target_are_never_opened(pipa, folders):
    labels = folders / "photos" / "labels"
    labels.mkdir()
    for image in (folders / "photos" / "images").iterdir():
        (labels / image.name).write_bytes(b"not a picture: who opens it, fails")
    assert pipa("adapt", "synthetic", "photos", *QUICK).code == 0


def test_a_source_without_labels_is_refused(pipa, folders):
    done = pipa("adapt", "photos", "synthetic", *QUICK)
    assert done.code == 2
    assert "labels" in done.err


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("{data: {crop: 32, colour: 3}, trainer: {max_steps: 4}}", "colour"),
        ("{data: {crop: 32}, trainer: {max_steps: 4}, optim: {layer_decay: 7}}", "layer_decay"),
        ("{data: {crop: 32}}", "max_steps"),
        ("{data: , trainer: {max_steps: 4}}", "data.crop"),
        ("{data: {crop: 32}, trainer: {max_steps: null}}", "max_steps"),
        ("{data: {crop: 32}, trainer: {max_steps: 4}, student: 5}", "max_steps"),
        ("[", "max_steps"),
    ],
)
def test_a_recipe_of_the_users_own_is_checked(pipa, folders, recipe, said):
    Path("mine.yaml").write_text(recipe)
    done = pipa("adapt", "synthetic", "photos", "--network=small", "--recipe=mine.yaml")
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_recipe_with_an_unknown_option_of_the_network_is_said(pipa, folders):
    Path("mine.yaml").write_text(
        "{data: {crop: 32}, trainer: {max_steps: 4}, method: , student: {network: small}}"
    )
    done = pipa("adapt", "synthetic", "photos", "--recipe=mine.yaml")
    assert done.code == 2
    assert "argument 'network'" in done.err
    assert len(done.err.splitlines()) == 1


def test_every_option_is_in_the_help_and_the_help_fits_on_a_screen():
    done = subprocess.run(
        [sys.executable, "-m", "pipa", "adapt", "--help"], capture_output=True, text=True
    )
    assert done.stdout == ADAPT_HELP
    lines = ADAPT_HELP.splitlines()
    assert (len(lines) <= 40, max(map(len, lines)) <= 80) == (True, True)
    said = {name.replace("-", "_") for name in re.findall(r"^  --([\w-]+)", ADAPT_HELP, re.M)}
    taken = set(inspect.signature(adapt).parameters) - {"source", "target", "quiet"}
    assert said == taken


@pytest.mark.slow
def test_the_example_of_real_images(pipa, tmp_path):
    done = pipa(
        *("adapt", NUCLEI / "fluorescence", NUCLEI / "stain"),
        *("--validation", NUCLEI / "stain_val", "--out", tmp_path / "run"),
        *("--network", "small", "--steps", "6"),
    )
    assert done.code == 0, done.err
    assert "nucleus" in done.out
