"""The original layouts, in miniature: check, stats, train, evaluate, without any conversion."""

import csv
import json

import builders
import numpy as np
import pytest

from .conftest import TINY


@pytest.fixture
def cityscapes(tmp_path):
    return builders.cityscapes(tmp_path / "cityscapes")


@pytest.mark.parametrize("source", ["gta5", "synthia"])
def test_from_a_game_to_cityscapes(pipa, source, cityscapes, tmp_path):
    data = f"{source}:{getattr(builders, source)(tmp_path / source)}"
    for command in ("check", "stats"):
        done = pipa("data", command, data)
        assert done.code == 0, done.err
        assert "road" in done.out

    out = tmp_path / "run"
    done = pipa(
        "train",
        f"--data.source={data}",
        f"--data.target=cityscapes:{cityscapes}",
        *TINY,
        f"--out={out}",
        "--trainer.max_steps=20",
    )
    assert done.code == 0, done.err
    with (out / "metrics.csv").open() as file:
        source_loss = [float(row["loss/source"]) for row in csv.DictReader(file)]
    assert len(source_loss) == 20
    assert np.mean(source_loss[-5:]) < np.mean(source_loss[:5])

    done = pipa("eval", out, f"cityscapes/val:{cityscapes}", "--out", tmp_path / "scores.json")
    assert done.code == 0, done.err
    assert "SYNTHIA's 16" in done.out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {"miou", "miou16", "miou13"} <= set(scores)


@pytest.mark.parametrize("target", ["acdc", "dark_zurich"])
def test_from_cityscapes_to_bad_weather(pipa, target, cityscapes, tmp_path):
    there = getattr(builders, target)(tmp_path / target)
    done = pipa(
        "train",
        f"--data.source=cityscapes/val:{cityscapes}",  # whose labels the miniature has
        f"--data.target={target}:{there}",
        f"--data.validation={target}:{there}",
        *TINY,
        f"--out={tmp_path / 'run'}",
        "--trainer.max_steps=2",
    )
    assert done.code == 0, done.err


def test_check_lists_every_fault_and_says_so_in_its_code(pipa, tmp_path):
    root = builders.folder(tmp_path / "data", 4)
    broken = root / "images" / "001.png"
    broken.write_bytes(broken.read_bytes()[:30])
    (root / "labels" / "002.png").unlink()
    done = pipa("data", "check", root, "--sheet", tmp_path / "sheet.png")
    assert done.code == 1
    assert "001.png" in done.out
    assert "002" in done.out
    assert (tmp_path / "sheet.png").is_file()


def test_streets_are_written_and_read_as_any_folder(pipa, tmp_path):
    there = tmp_path / "streets"
    few = ["--source=3", "--target=2", "--validation=1", "--test=1"]
    assert pipa("data", "streets", there, *few).code == 0
    assert not (there / "target" / "labels").exists()
    done = pipa("data", "check", there / "source")
    assert done.code == 0, done.err + done.out
