"""Every experiment file is short, is read without complaint, and becomes the run it names."""

from dataclasses import replace
from itertools import product

import pytest
import yaml
from jsonargparse import ArgumentParser

from pipa.classes import CITYSCAPES
from pipa.errors import PipaError
from pipa.files.installed import CONFIGS, experiment_files
from pipa.files.words import with_sizes
from pipa.models.build import create_segmenter
from pipa.run.options import read_experiment
from pipa.run.recipes import build_method
from pipa.uda.self_training import SelfTraining

PARTS = sorted(file for kind in ("data", "network", "method") for file in CONFIGS.glob(f"{kind}/*"))
ALONE = sorted(CONFIGS.glob("*.yaml"))
DATA = ("gta52cityscapes", "synthia2cityscapes", "cityscapes2acdc", "cityscapes2darkzurich")
OWN_TERMS = {
    "source_only": set(),
    "daformer": {"feature_distance"},
    "pipa": {"feature_distance", "pixel", "patch"},
    "mic": {"feature_distance", "masked"},
    "mic_pipa": {"feature_distance", "pixel", "patch", "masked"},
    "minent": {"entropy"},
    "advent": set(),
    "adaptsegnet": set(),
    "dacs": set(),
}
PAPERS = [
    *product(DATA, ("daformer", "hrda"), ("source_only", "daformer", "pipa")),
    *product(DATA[:2], ("hrda",), ("mic", "mic_pipa")),
    *product(DATA[:1], ("deeplabv2",), ("minent", "advent", "adaptsegnet", "dacs")),
]
PAPERS_OPTIONS = {
    "confidence": 0.968,
    "pseudo_weight": "share",
    "align_shares": 0.0,
    "marginal": False,
    "mix": "class",
    "start": 0,
    "jitter_source": False,
    "style": "none",
}


def composed(data, network, method):
    """The words after `pipa train` for a row of the papers."""
    sizes = "hrda" if network == "hrda" else "daformer"
    last = f"method/{method}" if f"method/{method}" in experiment_files() else ""
    return [f"data/{data}_{sizes}", f"network/{network}", last or f"--method.name={method}"]


def test_what_is_printed_is_refused_as_a_run_would_refuse_it(capsys):
    """Also without data, which `--print_config` does not need."""
    refused = {
        "--method.name=nope": "no method is called nope",
        "--method.terms=[pixle]": "no term is called pixle",
        "--student.name=nope": "no network is called 'nope'",
        "--data.crop=0": "--data.crop",
    }
    for word, said in refused.items():
        with pytest.raises((PipaError, SystemExit)) as stop:
            read(["own_data_small", word, "--print_config"])
        assert said in str(stop.value) + capsys.readouterr().err
    with pytest.raises(SystemExit):
        read(["own_data_small", "--data.crop", "96x128", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["crop"] == [96, 128]


def test_sizes_are_read_as_people_write_them():
    words = ["--data.crop", "96x128", "--data.target_resize=64", "--crop=32", "--crop", "[1,2]"]
    read_as = ["--data.crop", "[96,128]", "--data.target_resize=[64,64]", *words[3:]]
    assert with_sizes(words) == read_as
    assert with_sizes(["--size", "512", "--data.batch_size", "4"])[1::2] == ["[512,512]", "4"]
    for word in ("--data.pair_crop=96*big", "--resize=small", "--crop=64px"):
        with pytest.raises(PipaError, match="512 or 384x512"):
            with_sizes([word])


def read(words):
    return read_experiment(ArgumentParser(), list(words))


def built(run):
    """Everything but the weights: B0 stands for B5, which differs in depth and width only."""
    name = run["student"].name.replace("mit_b5", "mit_b0").replace("resnet_101", "resnet_50")
    student = create_segmenter(name, 19, **(run["student"].options or {}))
    pretrained = run["student"].weights is not None
    return build_method(
        run["method"], student, CITYSCAPES, run["terms"], optim=run["optim"], pretrained=pretrained
    )


@pytest.mark.parametrize("file", [*PARTS, *ALONE], ids=lambda file: file.stem)
def test_a_file_is_short_and_says_what_it_is(file):
    lines = file.read_text().splitlines()
    assert len(lines) <= 25
    assert lines[0].startswith("# ")
    if file in ALONE:
        assert any(line.startswith(f"# pipa train {file.stem} ") for line in lines)


def test_the_papers_runs_are_composed_of_few_files():
    assert len(PAPERS) == 32
    assert len(PARTS) <= 20


@pytest.mark.parametrize("row", PAPERS, ids="_".join)
def test_three_files_become_a_run(row):
    run = read(composed(*row))
    method = built(run)
    assert {term.name for term in method.terms} == OWN_TERMS[row[2]]
    assert {name: getattr(run["method"], name) for name in PAPERS_OPTIONS} == PAPERS_OPTIONS
    assert method.style is None
    if isinstance(method, SelfTraining):
        assert (method.teacher.pseudo_weight, method.pasted) == ("share", "class")
    assert run["trainer"]["max_steps"] == 60_000
    if "pipa" in row[2]:
        by_name = {term.name: term for term in run["terms"]}
        assert (by_name["patch"].start, by_name["pixel"].width) == (10_000, 1024)


@pytest.mark.parametrize("file", ALONE, ids=lambda file: file.stem)
def test_one_file_alone_is_a_run(file):
    run = read([str(file), "--data.source=x"])
    assert run["judge"] > 0
    method = built(run | {"method": replace(run["method"], style="colour")})
    assert method.teacher.pseudo_weight == "balanced"
    further = {"pair_cross_entropy", "pixel"} if "small" in file.stem else set()
    assert {term.name for term in method.terms} - {"feature_distance"} == further


@pytest.mark.parametrize("name", ["own_data_small", "configs/own_data_small.yaml"])
def test_a_file_of_pipa_is_found_by_its_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read([name, "--data.source=x"])["student"].name == "small"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "own_data_small.yaml").write_text("student: {name: segformer_mit_b0}")
    mine = read(["configs/own_data_small.yaml", "--data.source=x"])
    assert mine["student"].name == "segformer_mit_b0"


def test_a_later_file_and_then_an_option_overrides(tmp_path):
    later = tmp_path / "later.yaml"
    later.write_text("optim: {lr: 0.5, warm_up: 7}")
    words = composed("gta52cityscapes", "daformer", "pipa")
    run = read([*words, str(later), "--optim.warm_up=9"])
    assert (run["optim"].lr, run["optim"].warm_up) == (0.5, 9)
    assert run["student"].name == "daformer_mit_b5"


def test_every_file_of_a_method_names_it():
    for file in CONFIGS.glob("method/*.yaml"):
        assert "method" in yaml.safe_load(file.read_text())


def test_a_file_that_is_nowhere_is_refused_with_the_command_that_lists_them():
    with pytest.raises(PipaError, match=r"own_data_smal: there is no such.*`pipa configs`"):
        read(["own_data_smal"])
