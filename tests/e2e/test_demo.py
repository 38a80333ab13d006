"""`pipa demo` from beginning to end, in a few steps: what it writes, not how well it learns."""

import json
import re

import pytest
from jsonargparse import ArgumentParser

from pipa.run.options import read_experiment

METHODS = ("source_only", "control", "pipa")


def test_the_demo_writes_results_and_a_report_that_needs_nothing_else(pipa, tmp_path):
    done = pipa("demo", "--steps", "8", "--out", tmp_path / "demo")
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert set(results) == {*METHODS, "seconds"}
    for method in METHODS:
        assert 0 <= results[method]["miou"] <= 100
        assert len(results[method]["iou"]) == 19
    assert "gain" in done.out
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "<img" in page or "<svg" in page
    links = re.findall(r'(?:src|href)="([^"#]*)"', page)
    assert all(link.startswith("data:") for link in links)
    for method in METHODS:  # each is a run like any other: its file can be trained again
        file = tmp_path / "demo" / method / "config.yaml"
        own = read_experiment(ArgumentParser(), [str(file)])
        assert own["method"].name == {"control": "daformer"}.get(method, method)
        names = {"pipa": ["pixel", "patch"], "control": ["pair_cross_entropy"]}.get(method, [])
        assert {term.name for term in own["terms"]} >= set(names)
        assert all(term.width == 64 for term in own["terms"] if term.name in ("pixel", "patch"))


@pytest.mark.parametrize("name", ["pipa/work.py", "control/model/notes.txt", "results.json"])
def test_the_demo_deletes_nothing_that_it_did_not_write(pipa, tmp_path, name):
    mine = tmp_path / "home" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    done = pipa("demo", "--steps", "4", "--out", tmp_path / "home")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert mine.read_text() == "precious"
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == [mine]
