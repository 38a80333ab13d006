"""The doctor reports facts and faults, and never raises."""

import importlib.metadata
import platform

import pytest
import torch

from pipa import doctor
from pipa.doctor import diagnose, memory
from pipa.files.threads import available_cores


@pytest.fixture
def found():
    return {what: (value, state) for what, value, state in diagnose()}


def test_it_reads_what_is_there(found):
    assert found["python"][0].startswith(platform.python_version())
    assert torch.__version__ in found["torch build"][0]
    assert found["numpy"] == (importlib.metadata.version("numpy"), "ok")
    assert "pytest" not in found
    assert "gradio (web)" in found
    assert found["cores"] == (str(available_cores()), "ok")


def test_memory_is_within_the_machine():
    free, total = memory()
    assert 0 < free <= total


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PIPA_CACHE", str(tmp_path / "file" / "cache"))
    finding = next(line for line in diagnose() if line.what == "cache")
    assert "PIPA_CACHE" in finding.state


def test_asking_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPA_CACHE", str(tmp_path / "a" / "b"))
    finding = next(line for line in diagnose() if line.what == "cache")
    assert finding == ("cache", str(tmp_path / "a" / "b"), "ok")
    assert list(tmp_path.iterdir()) == []


def test_versions_out_of_range_and_missing_packages(monkeypatch):
    lines = ["numpy>=99", "not-there>=1", 'absent; extra == "web"', 'pytest; extra == "dev"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    found = {what: (value, state) for what, value, state in diagnose()}
    assert found["numpy"][1] == 'pip install "numpy>=99"'
    assert found["not-there"] == ("not installed", 'pip install "not-there>=1"')
    assert found["absent (web)"][1] == 'Optional: pip install "pipa-uda[web]"'
    assert "pytest" not in found


def test_a_probe_that_dies_is_one_line(monkeypatch):
    def _memory():
        raise ValueError("no such thing")
        yield

    monkeypatch.setattr(doctor, "_memory", _memory)
    findings = diagnose()
    assert ("memory", "ValueError: no such thing", "Could not be examined.") in findings
    assert any(line.what == "disk" for line in findings)
