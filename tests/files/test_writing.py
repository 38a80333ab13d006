"""A file is replaced whole or not at all, and only a file."""

import os
from pathlib import Path

import pytest

from pipa.errors import PipaError
from pipa.files.writing import refuse_suffix, write_bytes


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path):
    file = tmp_path / "a"
    write_bytes(file, b"old")
    with pytest.raises(PipaError, match="cannot be written"):
        write_bytes(tmp_path / ("x" * 250), b"new")  # its temporary name is too long
    write_bytes(file, b"new")
    assert file.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_only_a_file_is_replaced(tmp_path):
    """Root may rename over a device: `--sheet /dev/full` once made a picture of it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "pipe", tmp_path / "folder", tmp_path.parent / ".." / "..", "."):
        with pytest.raises(PipaError, match="it is no file"):
            write_bytes(tmp_path / place if place != "." else type(tmp_path)(), b"new")
    assert (tmp_path / "pipe").is_fifo()


def test_an_output_of_another_kind_is_refused():
    refuse_suffix(None, ".json", "--out")
    refuse_suffix(Path("scores.JSON"), ".json", "--out")
    with pytest.raises(PipaError, match=r"--out classes\.yaml: must end in \.json"):
        refuse_suffix(Path("classes.yaml"), ".json", "--out")
