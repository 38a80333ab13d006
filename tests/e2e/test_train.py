"""Train, resume, evaluate and predict on folders of images, through the real command line."""

import csv
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import folder
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from pipa import load_segmenter
from pipa.files.images import read_image, read_label
from pipa.run.options import read_experiment
from pipa.run.train import train

from .conftest import TINY


@pytest.fixture
def worlds(tmp_path):
    """A labelled source, an unlabelled target of another colour, and labelled validation images."""
    source = folder(tmp_path / "synthetic", 4)
    target = folder(tmp_path / "photos", 4, labelled=False, shift=25, seed=50)
    held_out = folder(tmp_path / "held_out", 2, shift=25, seed=90)
    return (
        f"--data.source={source}",
        f"--data.target={target}",
        f"--data.validation={held_out}",
    )


def losses(run, name):
    with (run / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_the_processes_that_load_end_with_the_training(pipa, worlds, tmp_path):
    """Else a script waits for each of them, five seconds and more, whenever they are collected."""
    before = set(active_children())
    steps = ("--data.workers=1", "--trainer.max_steps=2")
    assert pipa("train", *worlds, *TINY, *steps, f"--out={tmp_path / 'run'}").code == 0
    assert set(active_children()) <= before


def test_twenty_steps_learn_and_what_they_write_is_useful(pipa, worlds, tmp_path):
    out = tmp_path / "run"
    done = pipa(
        "train",
        "--data",
        "folder",
        *worlds,
        *TINY,
        f"--out={out}",
        "--data.target_resize=[40,54]",
        "--trainer.max_steps=20",
        "--seed=1",
    )
    assert done.code == 0, done.err
    source = losses(out, "loss/source")
    assert len(source) == 20
    assert np.mean(source[-5:]) < 0.9 * np.mean(source[:5])
    for name in ("loss/mixed", "loss/pixel", "loss/patch"):
        assert np.isfinite(losses(out, name)).all()
    assert "mean" in done.out
    assert (out / "config.yaml").is_file()

    scored = pipa("eval", out, worlds[2].split("=")[1], "--out", tmp_path / "scores.json")
    assert scored.code == 0, scored.err
    assert (tmp_path / "scores.json").is_file()

    image = next((tmp_path / "photos" / "images").iterdir())
    done = pipa("predict", out, image, "--out", tmp_path / "predictions")
    assert done.code == 0, done.err
    ids = read_label(next((tmp_path / "predictions" / "ids").iterdir()))
    assert ids.shape == read_image(image).shape[:2]
    assert set(np.unique(ids)) <= {0, 1, 2}
    model = load_segmenter(out)
    assert model.resize == load_segmenter(out / "checkpoints" / "last.ckpt").resize == (40, 54)
    np.testing.assert_array_equal(ids, model.predict(read_image(image)))


class KeepCheckpoint(Callback):
    """Copies `last.ckpt` as it is after some step: what an interrupted run would have left."""

    def __init__(self, step, to):
        self.step, self.to = step, to

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.step + 1:
            last = Path(trainer.checkpoint_callback.dirpath) / "last.ckpt"
            self.to.parent.mkdir(parents=True)
            self.to.write_bytes(last.read_bytes())


def test_resuming_is_as_if_never_stopped(pipa, worlds, tmp_path):
    options = [*worlds, *TINY, "--trainer.max_steps=12", "--trainer.val_check_interval=6"]
    options += ["--method.start=2"]
    whole, half = tmp_path / "whole", tmp_path / "half"
    sections = read_experiment(ArgumentParser(), [*options, f"--out={whole}"])
    train(**sections, callbacks=[KeepCheckpoint(6, half / "checkpoints" / "last.ckpt")])

    rest = pipa("train", *options, f"--out={half}", "--resume")
    assert rest.code == 0, rest.err
    expected = load_file(whole / "model" / "model.safetensors")
    got = load_file(half / "model" / "model.safetensors")
    for name, weight in expected.items():
        assert torch.equal(weight, got[name]), name
    first, second = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for run in (whole, half)
    )
    assert first.keys() == second.keys()
    for name, weight in first.items():  # the teacher, the projection heads and the bank, too
        assert torch.equal(weight, second[name]), name


def test_a_run_knows_how_to_go_on(pipa, worlds, tmp_path):
    """Its own config.yaml is enough: nobody keeps the command of last week."""
    out = tmp_path / "run"
    first = pipa("train", *worlds, *TINY, "--trainer.max_steps=2", f"--out={out}")
    assert first.code == 0, first.err
    more = pipa("train", "--resume", out, "--trainer.max_steps=4")
    assert more.code == 0, more.err
    assert len(losses(out, "loss/source")) == 4
    for options, said in (
        (("--trainer.max_steps=4",), "has 4 steps already"),
        (("--optim.lr=1", "--trainer.max_steps=9"), "optim.lr: 0.003, now 1.0"),
    ):
        refused = pipa("train", "--resume", out, *options)
        assert refused.code == 2
        assert said in refused.err
        assert "1.0" not in (out / "config.yaml").read_text().partition("lr:")[2][:6]
    refused = pipa("train", "--resume", tmp_path / "nothing")
    assert refused.code == 2
    assert "config.yaml" in refused.err


def test_the_saved_model_is_the_same_with_and_without_pipa(pipa, worlds, tmp_path):
    shapes = {}
    for name, method in (("with", "pipa"), ("without", "daformer")):
        out = tmp_path / name
        done = pipa(
            "train",
            *worlds,
            *TINY,
            f"--out={out}",
            "--trainer.max_steps=1",
            f"--method.name={method}",
        )
        assert done.code == 0, done.err
        state = load_file(out / "model" / "model.safetensors")
        shapes[name] = {key: tensor.shape for key, tensor in state.items()}
        network = load_segmenter(out)
        assert set(state) == set(network.state_dict())
    assert shapes["with"] == shapes["without"]


def test_no_label_of_the_target_is_opened(pipa, worlds, tmp_path):
    labels = tmp_path / "photos" / "labels"
    labels.mkdir()
    for image in (tmp_path / "photos" / "images").iterdir():
        (labels / image.name).write_bytes(b"not a picture: who opens it, fails")
    done = pipa("train", *worlds, *TINY, f"--out={tmp_path / 'run'}", "--trainer.max_steps=2")
    assert done.code == 0, done.err


def test_source_only_needs_no_target(pipa, worlds, tmp_path):
    done = pipa(
        "train",
        worlds[0],
        *TINY,
        "--method.name=source_only",
        f"--out={tmp_path / 'run'}",
        "--trainer.max_steps=2",
    )
    assert done.code == 0, done.err


def test_print_config_is_a_config(pipa, worlds, tmp_path):
    printed = pipa("train", *worlds, *TINY, "--trainer.max_steps=3", "--print_config")
    assert printed.code == 0
    config = tmp_path / "mine.yaml"
    config.write_text(printed.out)
    done = pipa("train", config, f"--out={tmp_path / 'run'}", "--trainer.max_steps=1")
    assert done.code == 0, done.err


def test_the_example_of_your_own_data(pipa, tmp_path):
    """Real images of different sizes, JPEG beside PNG labels, the class table one folder up."""
    nuclei = tmp_path / "nuclei"
    assert pipa("data", "nuclei", nuclei).code == 0
    assert pipa("data", "nuclei", nuclei).code == 2  # never writes over a folder
    done = pipa("data", "check", nuclei / "fluorescence", "--sheet", tmp_path / "sheet.png")
    assert done.code == 0, done.err + done.out
    done = pipa(
        "train",
        f"--data.source={nuclei / 'fluorescence'}",
        f"--data.target={nuclei / 'stain'}",
        f"--data.validation={nuclei / 'stain_val'}",
        *TINY,
        f"--out={tmp_path / 'run'}",
        "--trainer.max_steps=3",
    )
    assert done.code == 0, done.err
    assert "nucleus" in done.out
    done = pipa("predict", tmp_path / "run", nuclei / "stain", "--out", tmp_path / "predictions")
    assert done.code == 0, done.err
    count = len(list((nuclei / "stain" / "images").iterdir()))
    assert len(list((tmp_path / "predictions" / "overlay").rglob("*.png"))) == count
