"""Every experiment file is short, is read without complaint, and becomes the run it names."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from pipa.classes import CITYSCAPES
from pipa.models.build import create_segmenter
from pipa.run.options import read_experiment
from pipa.run.recipes import build_method

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
WORLDS = ("gta52cityscapes", "synthia2cityscapes", "cityscapes2acdc", "cityscapes2darkzurich")
PAPERS = [
    f"{world}_{network}_{method}"
    for world in WORLDS
    for network in ("daformer", "hrda")
    for method in ("source_only", "selftraining", "pipa")
]


def read(name):
    return read_experiment(
        ArgumentParser(),
        [str(CONFIGS / f"{name}.yaml"), *([] if "2" in name else ["--data.source=x"])],
    )


def test_every_row_of_the_papers_has_its_file():
    assert {file.stem for file in FILES} >= set(PAPERS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_short_and_says_how_to_run_it(file):
    lines = file.read_text().splitlines()
    assert len(lines) <= 25
    assert any(line.startswith("# pipa train") and file.name in line for line in lines)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_becomes_a_run(file):
    """Everything but the weights: B0 stands for B5, which differs in depth and width only."""
    run = read(file.stem)
    name = run["student"].name.replace("mit_b5", "mit_b0").replace("resnet_101", "resnet_50")
    student = create_segmenter(name, 19, **(run["student"].options or {}))
    method = build_method(
        run["method"],
        student,
        CITYSCAPES,
        run["losses"],
        optim=run["optim"],
        pretrained=run["student"].weights is not None,
    )
    terms = {term.name for term in getattr(method, "terms", ())}
    if file.stem.endswith("pipa"):
        masked = {"masked"} if "_mic_" in file.stem else set()
        assert terms == {"pixel", "patch", "feature_distance"} | masked
    if file.stem.endswith("selftraining"):
        assert terms == {"feature_distance"}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("network", ["daformer", "hrda"])
def test_baseline_and_pipa_differ_in_the_losses_only(world, network):
    baseline, pipa = (
        yaml.safe_load((CONFIGS / f"{world}_{network}_{method}.yaml").read_text())
        for method in ("selftraining", "pipa")
    )
    for losses in ("method", "pixel", "patch"):
        baseline.pop(losses, None)
        pipa.pop(losses, None)
    assert baseline == pipa
