"""Every method, with and without PiPa, on both networks: a few steps on Streets by command line."""

import csv
import math

import pytest
import torch
from safetensors.torch import load_file

from .conftest import TINY

STREETS = "streets:height=64,width=96,source=6,target=6,validation=2,test=1"
NETWORKS = {
    "daformer": ("--student.name=daformer_small", '--student.options={"head": {"width": 32}}'),
    "hrda": ("--student.name=hrda_small", '--student.options={"detail": 32}'),
}
METHODS = {
    "source_only": (),
    "minent": ("--entropy.weight=0.1",),
    "advent": ("--method.adversarial=0.1",),
    "adaptsegnet": ("--method.adversarial=0.1",),
    "dacs": (),
    "daformer": (),
    "mic": ("--masked.block=16",),
    "pipa": (),
}
GAME = {"adversarial", "discriminator_source", "discriminator_target"}
OWN = {
    "source_only": set(),
    "minent": {"entropy"},
    "advent": GAME,
    "adaptsegnet": GAME,
    "dacs": {"mixed"},
    "daformer": {"mixed"},
    "mic": {"mixed", "masked"},
}
"""Losses of each method but PiPa, beside the source's; no encoder here is pretrained."""
WITHOUT = {
    "minent": "source_only",
    "advent": "source_only",
    "adaptsegnet": "source_only",
    "dacs": "source_only",
    "daformer": "source_only",
    "mic": "daformer",
    "pipa": "daformer",
}
"""The method that is left when its own piece is taken away."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the runs that were made so far, by network, method and PiPa."""
    folder = tmp_path_factory.mktemp("methods")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIPA_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def train(pipa, runs):
    def once(network, method, with_pipa):
        out = runs / f"{network}-{method}-{with_pipa}"
        if not out.exists():
            done = pipa(
                "train",
                *TINY,
                f"--data.source={STREETS}",
                f"--data.target={STREETS}",
                "--data.crop=64",
                "--data.pair_crop=64",
                "--data.rare_class_temperature=null",  # DACS has none: the same images for all
                "--method.confidence=0",  # so few steps make no sure pixel
                *NETWORKS[network],
                f"--method.name={method}",
                *METHODS[method],
                *(["--method.terms=[pixel,patch]"] if with_pipa else []),
                "--trainer.max_steps=10",
                f"--out={out}",
            )
            assert done.code == 0, done.err
        return out

    return once


def losses(run):
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss/source")]
    return {
        name.removeprefix("loss/"): [float(row[name]) for row in rows]
        for name in rows[0]
        if name.startswith("loss/")
    }


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", OWN)
def test_a_method_learns_with_and_without_pipa(train, network, method):
    shapes = {}
    for with_pipa in (False, True):
        run = train(network, method, with_pipa)
        logged = losses(run)
        wanted = {"source", *OWN[method], *({"pixel", "patch"} if with_pipa else ())}
        assert set(logged) == wanted
        assert all(math.isfinite(value) for values in logged.values() for value in values)
        assert sum(logged["source"][-3:]) < sum(logged["source"][:3])
        weights = load_file(run / "model" / "model.safetensors")
        shapes[with_pipa] = {name: tuple(weight.shape) for name, weight in weights.items()}
    assert shapes[True] == shapes[False]  # nothing of PiPa is left at inference


@pytest.mark.parametrize("network", NETWORKS)
def test_pipa_is_daformer_with_its_two_terms(train, network):
    pipa, composed = train(network, "pipa", False), train(network, "daformer", True)
    assert losses(pipa) == losses(composed)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", WITHOUT)
def test_the_piece_of_a_method_moves_the_student(train, network, method):
    """Same weights, same source batches: a difference can only come from its gradient."""
    mine, other = (
        load_file(train(network, name, False) / "model" / "model.safetensors")
        for name in (method, WITHOUT[method])
    )
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # any pass moves them
    moved = [
        name
        for name, weight in mine.items()
        if not name.endswith(statistics) and not torch.equal(weight, other[name])
    ]
    assert any(name.startswith("backbone.") for name in moved)
    assert any(name.startswith("head.") for name in moved)


def test_a_method_without_a_teacher_can_have_masked_consistency(pipa, runs, tmp_path):
    given = (*TINY, f"--data.source={STREETS}", f"--data.target={STREETS}", "--method.name=advent")
    given = (*given, "--method.terms=[masked]", "--masked.block=16", "--trainer.max_steps=2")
    refused = pipa("train", *given, f"--out={tmp_path / 'a'}")
    assert refused.code == 2
    assert "teacher" in refused.err
    assert refused.err.count("\n") == 1
    done = pipa("train", *given, "--masked.teacher=own", f"--out={tmp_path / 'b'}")
    assert done.code == 0, done.err
    assert "masked" in losses(tmp_path / "b")
