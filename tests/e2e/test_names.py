"""Names of classes, files and folders are data: in tables, on sheets, in reports and plots."""

import os
import subprocess
import sys

import pytest
from builders import CLASSES, folder
from rich.console import Console

from pipa.evaluation.plots import class_bars
from pipa.evaluation.scores import Result, comparison_table, score_table
from pipa.files.images import read_image

from .conftest import TINY

AWFUL = ("[/a] road", "<script>alert(1)</script>", "cost: $x_$ & more")


def result():
    scores = dict.fromkeys(AWFUL, 50.0)
    return Result(miou=50.0, iou=scores, class_accuracy=scores, accuracy=50.0, mean_accuracy=50.0)


def printed(table):
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table)
    return shown.get()


def test_a_class_may_be_called_like_markup_or_html():
    for table in (score_table(result()), comparison_table({"[/c]": result()}, "[/b]")):
        shown = printed(table)
        assert all(name in shown for name in AWFUL)
    assert all(name in shown for name in ("[/b]", "[/c]"))
    assert class_bars({name: dict(result().iou) for name in AWFUL})


@pytest.mark.parametrize("command", ["check", "stats"])
def test_a_folder_and_a_class_may_be_called_like_markup(pipa, tmp_path, command):
    root = folder(tmp_path / "x[/b]y", 2, classes=CLASSES.replace("ground", "'[/a] ground'"))
    done = pipa("data", command, root)
    assert done.code == 0, done.err
    assert "[/a] ground" in done.out


def test_a_file_name_may_be_no_text(pipa, tmp_path):
    """A name in Latin-1 ended `data check --sheet` in a segmentation fault."""
    root = folder(tmp_path / "data", 2)
    for place in ("images", "labels"):
        (root / place / "000.png").rename(root / place / os.fsdecode(b"caf\xe9.png"))
    done = pipa("data", "check", root, "--sheet", tmp_path / "sheet.png")
    assert done.code == 0, done.err
    assert read_image(tmp_path / "sheet.png").any()
    (root / "labels" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"broken")
    done = pipa("data", "check", root)
    assert done.code == 1
    assert "caf\\udce9.png" in done.out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_run_and_its_data_may_lie_in_a_folder_whose_name_is_no_text(pipa, tmp_path):
    """TensorBoard, YAML, safetensors and torch take UTF-8 only; Latin-1 discs are about."""
    place = tmp_path / os.fsdecode(b"caf\xe9")
    source, target = folder(place / "s", 2), folder(place / "t", 2, labelled=False)
    run = place / "run"
    where = (f"--data.source={source}", f"--data.target={target}", f"--data.validation={source}")
    done = pipa("train", *where, *TINY, "--trainer.max_steps=2", f"--out={run}")
    assert done.code == 0, done.err
    assert any((run / "tensorboard").glob("events.*"))
    assert "caf\\udce9" in (run / "report.html").read_text("utf-8")
    done = pipa("train", "--resume", run, "--trainer.max_steps=3")  # reads YAML and checkpoint
    assert done.code == 0, done.err
    done = pipa("predict", run, target / "images", "--out", place / "labelled")
    assert done.code == 0, done.err
    assert len(list((place / "labelled" / "ids").iterdir())) == 2
    done = pipa("train", run / "config.yaml", f"--out={place / 'again'}", "--trainer.max_steps=1")
    assert done.code == 0, done.err


def test_a_refusal_is_one_line_for_a_user_without_a_home(tmp_path):
    """Libraries that keep settings in the home folder complained beside it."""
    nowhere = {"HOME": "/dev/null/home", "XDG_CONFIG_HOME": "/dev/null/config"}
    command = (sys.executable, "-m", "pipa", "compare", str(tmp_path))
    environment = {k: v for k, v in os.environ.items() if k != "MPLCONFIGDIR"} | nowhere
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
