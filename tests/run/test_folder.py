"""A run's folder is cleared only of what a run wrote."""

import pytest

from pipa.errors import PipaError
from pipa.run.folder import clear, foreign_files, prepare_folder

WRITTEN = (
    "config.yaml",
    "metrics.csv",
    "checkpoints/last.ckpt",
    "checkpoints/.last.ckpt.7.part",
    "tensorboard/events.out.tfevents.1.host.2.0",
    "model/model.safetensors",
    ".model.7.new/config.json",
)


@pytest.fixture
def run(tmp_path):
    for name in WRITTEN:
        file = tmp_path / "run" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    return tmp_path / "run"


def test_what_a_run_writes_is_cleared(run):
    assert foreign_files(run) == []
    clear(run)
    assert not run.exists()


@pytest.mark.parametrize(
    "name", ["work.py", "model/notes.txt", "checkpoints/mine/a.ckpt", "x.ckpt"]
)
def test_a_file_that_no_run_writes_keeps_the_folder(run, name):
    file = run / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    with pytest.raises(PipaError, match="no run wrote"):
        clear(run)
    assert file.read_text() == "precious"
    assert all((run / name).is_file() for name in WRITTEN)


@pytest.mark.parametrize("name", ["model", "model/config.json", "elsewhere"])
def test_a_link_is_never_followed(run, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("precious")
    link = run / name
    if name == "model":
        (link / "model.safetensors").unlink()
        link.rmdir()
    link.symlink_to(outside)
    with pytest.raises(PipaError, match="no run wrote"):
        clear(run)
    assert (outside / "config.json").read_text() == "precious"


def test_a_run_takes_no_folder_whose_files_it_would_write_over(tmp_path):
    mine = tmp_path / "config.yaml"
    mine.write_text("# my options\n")
    prepare_folder(tmp_path, resume=False, steps=2)
    (tmp_path / "photos").mkdir()
    with pytest.raises(PipaError, match=r"holds config\.yaml, which a run would replace"):
        prepare_folder(tmp_path, resume=False, steps=2)
    assert mine.read_text() == "# my options\n"
    mine.unlink()
    prepare_folder(tmp_path, resume=False, steps=2)
