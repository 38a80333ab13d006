"""The recipes of CONTRIBUTING.md, each block run as it stands there, from outside `src`."""

import csv
import json
import re
import shlex
import sys
from pathlib import Path

import builders
import pytest
import torch
from e2e.conftest import TINY, pipa  # noqa: F401  # the fixture

from pipa.models.build import HEADS
from pipa.models.saved import load_segmenter

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def block(name: str) -> str:
    """The Python block whose first line is `# NAME`."""
    (found,) = re.findall(rf"```python\n(# {re.escape(name)}\n.*?)```", TEXT, re.DOTALL)
    return found


def options(word: str) -> list[str]:
    """The options of the console block that holds `word`."""
    (line,) = re.findall(rf"```console\npipa train \S+ (.*{re.escape(word)}.*)\n```", TEXT)
    return shlex.split(line)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder of the user's, with data, where commands are typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    builders.folder(tmp_path / "synthetic")
    builders.folder(tmp_path / "photos", labelled=False, shift=25, seed=50)
    yield tmp_path
    for module in ("my_losses", "my_data", "my_methods", "my_networks"):
        sys.modules.pop(module, None)


def test_add_a_target_loss(pipa, elsewhere):  # noqa: F811
    (elsewhere / "my_losses.py").write_text(block("my_losses.py"))
    given = [*TINY, *options("my_losses"), "--method.name=daformer", "--trainer.max_steps=3"]
    done = pipa("train", *given, "--out=run")
    assert done.code == 0, done.err
    with (elsewhere / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(float(row["loss/mirror"] or 0) > 0 for row in rows)
    refused = pipa("train", *[g for g in given if "photos" not in g and "target" not in g])
    assert refused.code == 2
    assert "target" in refused.err


def test_a_method_and_a_network_of_ones_own(pipa, elsewhere):  # noqa: F811
    """Trained from the command line, and read again with what it was built with."""
    for file in ("my_methods.py", "my_networks.py"):
        (elsewhere / file).write_text(block(file))
    given = [*TINY, *options("my_methods"), *options("my_networks"), "--trainer.max_steps=2"]
    done = pipa("train", *given, "--out=run")
    assert done.code == 0, done.err
    assert "loss/entropy" in (elsewhere / "run" / "metrics.csv").read_text()
    model = load_segmenter(elsewhere / "run")
    assert type(model).__name__ == "Shallow"
    assert model.backbone.channels == [32]
    assert model.predict(torch.rand(3, 40, 56)).shape == (40, 56)


def test_add_a_data_set(pipa, elsewhere):  # noqa: F811
    (elsewhere / "my_data.py").write_text(block("my_data.py"))
    (elsewhere / "aerial").mkdir()
    for path in (elsewhere / "synthetic" / "images").iterdir():
        path.rename(elsewhere / "aerial" / path.name)
        label = elsewhere / "synthetic" / "labels" / path.name
        label.rename(elsewhere / "aerial" / f"{path.stem}_ids.png")
    done = pipa("train", *TINY, *options("my_data"), "--trainer.max_steps=2", "--out=run")
    assert done.code == 0, done.err
    names = json.loads((elsewhere / "run" / "model" / "config.json").read_text())["labels"]["names"]
    assert names == ["ground", "water", "forest"]


def test_add_a_network(monkeypatch):
    monkeypatch.setattr("pipa.models.build.HEADS", HEADS)
    before = dict(HEADS)
    scope: dict = {}
    try:
        exec(compile(block("my_heads.py"), "my_heads.py", "exec"), scope)
        logits = scope["student"].eval()(torch.rand(1, 3, 64, 96))
    finally:
        HEADS.clear()
        HEADS.update(before)
    assert logits.shape == (1, 19, 64, 96)
