"""`pipa ablate` and `pipa compare`, each run a process of its own as users have it."""

import fcntl
import json
import subprocess
import sys

import pytest
import yaml
from builders import folder
from jsonargparse import ArgumentParser

from pipa.files.threads import available_cores
from pipa.run.grid import read_grid

from .conftest import TINY


@pytest.fixture
def given(tmp_path):
    source = folder(tmp_path / "synthetic", 3)
    target = folder(tmp_path / "photos", 3, labelled=False, shift=25, seed=50)
    held_out = folder(tmp_path / "held_out", 1, shift=25, seed=90)
    return (
        *TINY,
        f"--data.source={source}",
        f"--data.target={target}",
        f"--data.validation={held_out}",
        "--trainer.max_steps=2",
        "--method.name=daformer",
        "--jobs=2",
        f"--out={tmp_path / 'grid'}",
    )


def written(run):
    return (run / "results.json").stat().st_mtime_ns


def test_a_grid_is_run_gone_on_with_and_compared(pipa, given, tmp_path):
    out = tmp_path / "grid"
    done = pipa("ablate", *given, "--vary", "pixel", "--seeds", "0,1")
    assert done.code == 0, done.err + done.out
    table = json.loads((out / "table.json").read_text())["rows"]
    assert list(table) == ["none", "pixel"]
    assert set(table["pixel"]["differences"]["none"]["by_seed"]) == {"0", "1"}
    assert (out / "table.svg").is_file()
    page = (out / "report.html").read_text()
    assert "minus none" in page
    assert "(2 seeds)" in page

    # What is finished stays, what is missing is made: a run that was stopped near its end.
    (out / "pixel" / "seed1" / "results.json").unlink()
    before = {run: written(out / run) for run in ("none/seed0", "none/seed1", "pixel/seed0")}
    again = pipa("ablate", *given, "--vary", "pixel", "--seeds", "0,1")
    assert again.code == 0, again.err
    assert "[1/1] pixel, seed 1" in again.out
    assert before == {run: written(out / run) for run in before}
    assert (
        json.loads((out / "table.json").read_text())["rows"]["pixel"]["miou"]
        == table["pixel"]["miou"]
    )

    refused = pipa("ablate", *given, "--vary", "pixel", "--seeds=0", "--optim.lr=1e-4")
    assert refused.code == 2
    assert "other options" in refused.err
    assert "optim.lr: 0.003, now 0.0001" in refused.err
    fewer = pipa("ablate", *given, "--vary", "pixel", "--seeds=0")
    assert fewer.code == 0, fewer.err
    assert (
        json.loads((out / "table.json").read_text())["rows"]["pixel"]["miou"]
        == table["pixel"]["miou"]
    )

    compared = pipa("compare", out / "none", out / "pixel", "--against", "pixel", "--out", tmp_path)
    assert compared.code == 0, compared.err
    stored = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert stored["none"]["miou"] == table["none"]["miou"]
    assert f"Scored on: {tmp_path / 'held_out'}." in compared.out


def write_scores(row, by_seed):
    """Finished runs of one row, as far as a table reads them."""
    for seed, miou in enumerate(by_seed):
        (row / f"seed{seed}").mkdir(parents=True)
        scores = {"seed": seed, "miou": miou, "iou": dict.fromkeys(CLASSES, miou)}
        (row / f"seed{seed}" / "results.json").write_text(json.dumps(scores))


CLASSES = ("ground", "water", "forest")


def test_seeds_are_added_up_to_the_most_and_a_stopped_command_goes_on(pipa, given, tmp_path):
    """Differences of 1 and 3: Student's interval of two seeds is 2 +- 12.7."""
    out = tmp_path / "grid"
    write_scores(out / "none", [30.0, 31.0, 32.0])
    write_scores(out / "pixel", [31.0, 34.0])
    asked = ("--vary=pixel", "--seeds=0", "--until=0.1", "--most-seeds=3", "--jobs=1")
    done = pipa("ablate", *given, *asked)
    assert done.code == 0, done.err + done.out
    said = "with 2 seeds: the widest 95 % interval is ± 12.71 points (pixel minus none)"
    assert f"{said}; asked for ± 0.1\n" in done.out
    assert "[1/1] pixel, seed 2: mIoU" in done.out
    assert "with 3 seeds: the widest" in done.out
    assert not (out / "none" / "seed3").exists()
    table = json.loads((out / "table.json").read_text())
    assert set(table["rows"]["pixel"]["differences"]["none"]["by_seed"]) == {"0", "1", "2"}
    assert table["detectable"]["seeds"] == 3

    again = pipa("ablate", *given, *asked)
    assert again.code == 0, again.err
    assert "6 of 6 runs are done already" in again.out
    assert "/1]" not in again.out


def test_no_seeds_are_added_to_narrow_intervals(pipa, given, tmp_path):
    out = tmp_path / "grid"
    write_scores(out / "none", [30.0, 31.0])
    write_scores(out / "pixel", [31.0, 32.05])
    done = pipa("ablate", *given, "--vary=pixel", "--seeds=0", "--until=0.5")
    assert done.code == 0, done.err + done.out
    assert "with 2 seeds: the widest 95 % interval is ± 0.32" in done.out
    assert not (out / "none" / "seed2").exists()


def test_seeds_are_added_for_the_named_difference_only(pipa, given, tmp_path):
    """`patch` differs by 1 and 9, which would ask for more seeds; `pixel` by 1 and 1.05."""
    out = tmp_path / "grid"
    write_scores(out / "none", [30.0, 31.0])
    write_scores(out / "pixel", [31.0, 32.05])
    write_scores(out / "patch", [31.0, 40.0])
    write_scores(out / "pixel+patch", [31.0, 40.0])
    asked = ("--vary=pixel,patch", "--seeds=0", "--until=0.5")
    done = pipa("ablate", *given, *asked, "--until-rows=pixel")
    assert done.code == 0, done.err + done.out
    assert "with 2 seeds: the widest 95 % interval is ± 0.32 points (pixel minus none)" in done.out
    assert not (out / "none" / "seed2").exists()


def test_a_folder_with_scores_on_other_images_is_refused(pipa, given, tmp_path):
    old = tmp_path / "grid" / "old"
    write_scores(old, [30.0])
    (old / "config.yaml").write_text("# old\ndata: {validation: elsewhere}\n")
    done = pipa("ablate", *given, "--vary=pixel", "--seeds=0")
    assert done.code == 2
    assert "row none: is scored on" in done.err
    assert "row old on elsewhere" in done.err
    assert not (tmp_path / "grid" / "none").exists()


def test_without_a_gpu_every_core_has_a_run(given):
    words = [word for word in given if not word.startswith("--jobs")]
    assert read_grid(ArgumentParser(), [*words, "--vary=pixel"]).jobs == available_cores()


def test_a_number_of_batches_stays_whole(given):
    """In a process of its own: what `typing` makes of Lightning's types depends on imports."""
    code = (
        "import sys, pipa.run.ablate; from jsonargparse import ArgumentParser\n"
        "from pipa.run.grid import read_grid\n"
        "print(read_grid(ArgumentParser(), sys.argv[1:]).settings[0].text)"
    )
    words = (*given, "--vary=pixel", "--trainer.limit_val_batches=2")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "limit_val_batches: 2\n" in done.stdout


def test_a_training_does_not_write_into_an_ablation(pipa, tmp_path):
    (tmp_path / "none" / "seed0").mkdir(parents=True)
    (tmp_path / "report.html").write_text("the ablation's")
    done = pipa(
        "train",
        *TINY,
        "--data.source=streets:source=2",
        "--trainer.max_steps=1",
        "--method.name=source_only",
        f"--out={tmp_path}",
    )
    assert done.code == 2
    assert "is the folder of an ablation" in done.err
    assert (tmp_path / "report.html").read_text() == "the ablation's"


def test_two_ablations_do_not_share_a_folder(pipa, given, tmp_path):
    (tmp_path / "grid").mkdir()
    with (tmp_path / "grid" / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused = pipa("ablate", *given, "--vary", "pixel")
    assert refused.code == 2
    assert "another ablation is at work" in refused.err


def test_a_row_is_what_it_says_also_where_that_is_nothing(tmp_path, given):
    """`null` is not the default everywhere: it must survive on its way to the run."""
    vary = ("--vary", "data.rare_class_temperature=0.01:null")
    grid = read_grid(ArgumentParser(), [*given, *vary])
    temperatures = [
        yaml.safe_load(setting.text)["data"]["rare_class_temperature"] for setting in grid.settings
    ]
    assert temperatures == [0.01, None]


def test_a_loss_of_ones_own_varies_like_one_of_ours(given, tmp_path, monkeypatch):
    (tmp_path / "grid_losses.py").write_text(
        "import pipa\n"
        "class Calm(pipa.SourceTerm):\n"
        "    name = 'calm'\n"
        "    def __init__(self, *, weight=0.1): super().__init__(weight)\n"
        "    def forward(self, prediction, source, generator=None): return prediction\n"
    )
    monkeypatch.chdir(tmp_path)
    grid = read_grid(ArgumentParser(), [*given, "--vary", "grid_losses.Calm,data.crop=32:40x48"])
    names = [setting.name for setting in grid.settings]
    assert names == ["crop=32", "crop=40x48", "Calm+crop=32", "Calm+crop=40x48"]
    last = yaml.safe_load(grid.settings[-1].text)
    assert last["method"]["terms"] == ["grid_losses.Calm"]
    assert last["data"]["crop"] == [40, 48]


def test_a_run_that_fails_is_named_and_the_others_count(pipa, given, tmp_path):
    rows = tmp_path / "rows.yaml"
    rows.write_text("good: {method.terms: []}\nbad: {data.source: /nowhere}\n")
    done = pipa("ablate", *given, "--rows", rows, "--seeds", "0", "--against=bad")
    assert done.code == 1
    assert "bad: nothing is compared with it" in done.out
    assert "bad, seed 0" in done.out
    assert "/nowhere" in done.out
    stored = json.loads((tmp_path / "grid" / "table.json").read_text())
    assert list(stored["rows"]) == ["good"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--vary", "pixle"], "no option is called pixle"),
        (["--vary", "pixel", "--method.name=pipa"], "these have not: source_only, minent"),
        (["--vary", "pixel", "--method.terms=[pixel,patch]"], '"--method.terms=[patch]"'),
        (["--vary", "pixel", "--method.name=pipo"], "no method is called pipo"),
        (["--vary", "nowhere.Mine"], "nowhere.Mine: cannot be imported"),
        (["--vary", "data.nothing"], "no option is called data.nothing"),
        (["--vary", "patch.weight"], "is no switch"),
        (["--vary", "patch.weight=heavy"], "heavy"),
        (["--vary", "pixel", "--seeds", "first"], "seeds"),
        (["--vary", "pixel", "--against", "DACS"], "no row is called DACS"),
        (["--vary", "pixel", "--data.validation=null"], "--data.validation"),
        (["--vary", "optim.lr=1e-3:1e-3"], "two rows"),
        (["--vary", "pixel", "--jobs=-1"], "--jobs"),
        (["--vary", "pixel", "--seed=7"], "--seeds"),
        (["--vary", "pixel", "--optim.layer_decay=2"], "layer_decay"),
        (["--vary", "pixel", "--data.target=null"], "--data.target"),
        (["--vary", "pixel", "--trainer.limit_val_batches=0"], "scores"),
        ([], "nothing varies"),
        (["--vary", "trainer.limit_val_batches=2:3"], "the first 3, but row limit_val_batches=2"),
        (["--vary", "pixel", "--until=0"], "--until: is 0.0"),
        (["--vary", "data.crop=32", "--until=0.5"], "--until: needs two rows"),
        (["--vary", "pixel", "--until=0.5", "--most-seeds=2"], "--most-seeds: is 2"),
        (["--vary", "pixel", "--most-seeds=5"], "--most-seeds: means nothing"),
        (["--vary", "pixel", "--until-rows=pixel"], "--until-rows: means nothing"),
        (["--vary", "pixel", "--until=1", "--until-rows=patch"], "--until-rows: no row is called"),
        (["--vary", "pixel", "--until=1", "--until-rows=none"], "--until-rows: none is what all"),
        (["--vary", "pixel", "--until=1", "--until-rows=none,none"], "--until-rows: none is what"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_anything_runs(
    pipa, given, tmp_path, arguments, said
):
    done = pipa("ablate", *given, *arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "grid").exists()


def test_comparing_what_is_no_run_is_refused(pipa, tmp_path):
    done = pipa("compare", tmp_path)
    assert done.code == 2
    assert "no finished run" in done.err
