"""What `pipa adapt` chooses: for a machine, for data, and never against the user."""

from collections import Counter

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from rich.table import Table

from pipa import PipaError
from pipa.data.check import Report
from pipa.files.installed import CONFIGS
from pipa.run import choices
from pipa.run.adapt import Checked, seen_in
from pipa.run.choices import LARGE, LIGHT, SCRATCH, Asked, DataFacts, choose
from pipa.run.machine import Machine
from pipa.run.options import read_experiment

CPU, GPU = Machine("cpu", 2), Machine("cuda", 8, 24.0)
PHOTOS = DataFacts(((360, 480), (360, 480)), 300)


@pytest.fixture(params=[True, False], ids=["online", "offline"])
def online(request, monkeypatch):
    """Whether the Hub answers: the only part of the world outside that a choice depends on."""
    monkeypatch.setattr(choices, "obtainable", lambda weights: request.param)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    return request.param


def chosen(machine=CPU, seen=PHOTOS, **asked):
    return choose(machine, seen, Asked(**asked))


def run_of(found):
    """The arguments of `train` that the chosen words become."""
    return read_experiment(ArgumentParser(), [*found.words, "--data.source=a", "--data.target=b"])


def test_the_machine_decides_the_recipe(online):
    found = {machine.device: chosen(machine) for machine in (CPU, GPU)}
    expected = (LIGHT, LARGE) if online else (SCRATCH, SCRATCH)
    assert (found["cpu"].recipe, found["cuda"].recipe) == expected
    if online:
        assert "research only" in found["cuda"].reasons["network"]
        small = chosen(Machine("cuda", 8, 6.0))
        assert (small.recipe, small.options["student.name"]) == (LIGHT, "fpn_mobilenet_v2")
    else:
        assert "cannot be fetched" in found["cpu"].reasons["network"]
    assert found["cpu"].options["trainer.accelerator"] == "cpu"
    assert found["cuda"].options["trainer.accelerator"] == "gpu"


def test_a_recipe_is_changed_only_where_machine_and_data_ask_for_it(online):
    found = chosen()
    recipe = yaml.safe_load((CONFIGS / f"{found.recipe}.yaml").read_text())
    run = run_of(found)
    assert list(run["data"].crop) == recipe["data"]["crop"]
    assert run["trainer"]["max_steps"] == recipe["trainer"]["max_steps"]
    assert run["method"].start == recipe["method"]["start"]
    assert run["optim"].lr == recipe["optim"]["lr"]
    assert run["judge"] == recipe["judge"]


def test_what_is_asked_for_is_taken(online):
    found = chosen(
        recipe=SCRATCH,
        network="segformer_mit_b0",
        pretrained="none",
        crop=64,
        batch_size=3,
        steps=9,
    )
    run = run_of(found)
    assert (run["student"].name, run["student"].weights) == ("segformer_mit_b0", None)
    assert (run["data"].crop, run["data"].batch_size) == ((64, 64), 3)
    assert run["trainer"]["max_steps"] == 9


def test_own_weights_keep_the_recipe_for_pretrained_networks(online, tmp_path):
    mine = tmp_path / "weights"
    found = chosen(network="segformer_mit_b0", pretrained=str(mine))
    assert found.recipe == LIGHT
    assert found.options["student.pretrained"] == str(mine)
    assert chosen(network="small").recipe == SCRATCH


def test_weights_that_are_asked_for_and_cannot_be_had_are_refused():
    """The name is none that the Hub has, which its library says by an error of its own."""
    with pytest.raises(PipaError, match=r"--pretrained \./typo: cannot be fetched"):
        choose(Machine("cpu", 2), PHOTOS, Asked(pretrained="./typo"))


@settings(max_examples=60, deadline=None)
@given(
    smallest=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    images=st.integers(1, 10_000),
    steps=st.none() | st.integers(2, 50_000),
)
def test_a_crop_fits_and_every_part_has_its_time(smallest, images, steps):
    seen = DataFacts((smallest, (400, 400)), images)
    found = chosen(seen=seen, network="small", steps=steps)
    crop, options = found.options["data.crop"], found.options
    fits = all(side <= limit for side, limit in zip(crop, smallest, strict=True))
    assert fits or options["data.pad"] == "true"
    assert fits or min(smallest) < 32
    length = options["trainer.max_steps"]
    assert 0 < options.get("method.start", 400) < length
    assert 0 < options.get("optim.warm_up", 50) < length


def test_few_images_shorten_the_training_of_a_pretrained_network(monkeypatch):
    monkeypatch.setattr(choices, "obtainable", lambda weights: True)
    few, many = (chosen(GPU, DataFacts(PHOTOS.sizes, n), recipe=LARGE) for n in (150, 5000))
    assert few.options["trainer.max_steps"] == 15_000  # 200 passes over 150 images, two at a time
    assert few.options["method.start"] == 750
    assert many.options["trainer.max_steps"] == 40_000


def test_large_photos_are_pointed_out():
    found = chosen(seen=DataFacts(((360, 480), (3000, 4000)), 10), network="small")
    assert "3000x4000" in found.reasons["crop"]


def report(*sizes):
    return Report(Table(), [], 0, len(sizes), Counter(sizes), None, np.zeros((0, 0), int))


def seen_among(source, target, resize=None):
    return seen_in(Checked(None, report(*source), report(*target), None), resize)


def test_one_tiny_image_does_not_shrink_the_crop_of_all():
    """It is filled up, and a line says so; many small ones do shrink the crop."""
    one = seen_among([(360, 480)] * 9, [(360, 480)] * 9 + [(40, 50)])
    few, usual = chosen(seen=one, network="small"), chosen(network="small")
    assert few.options["data.crop"] == usual.options["data.crop"]
    assert (few.options["data.pad"], usual.options["data.pad"]) == ("true", "false")
    assert "smaller images, down to 40x50, are filled up" in few.reasons["crop"]
    many = chosen(seen=seen_among([(360, 480)] * 9, [(40, 50)] * 9), network="small")
    assert many.options["data.crop"] == [32, 32]


def test_photos_can_be_resized_and_a_line_says_when_to():
    sizes = [(240, 480)] * 5, [(3000, 4000)] * 5
    hint = chosen(seen=seen_among(*sizes), network="small")
    assert "--resize 240x480 scales the target's" in hint.reasons["crop"]
    assert "data.target_resize" not in hint.options
    resized = chosen(seen=seen_among(*sizes, (300, 400)), network="small", resize=(300, 400))
    assert list(run_of(resized)["data"].target_resize) == [300, 400]
    assert "into 300x400" in resized.reasons["resize"]
    assert "--resize" not in resized.reasons["crop"]
    assert "--resize" not in chosen(network="small").reasons["crop"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"recipe": "own_data_tiny"}, "own_data_small"),
        ({"network": "small", "batch_size": 0}, "--batch-size"),
        ({"network": "small", "steps": 1}, "--steps"),
        ({"network": "small", "crop": 0}, "--crop"),
    ],
)
def test_impossible_values_are_refused(asked, said):
    with pytest.raises(PipaError, match=said):
        chosen(**asked)
