"""`check` lists every fault, not only the first; `stats` is the class table."""

import numpy as np
import pytest
from builders import cityscapes, folder, mosaic

from pipa.data.check import check, stats
from pipa.errors import PipaError
from pipa.files.images import read_image, write_png


def cells(table):
    """Rows of a table as text."""
    return list(zip(*([str(c) for c in column.cells] for column in table.columns), strict=True))


def test_a_whole_data_set_has_no_faults(tmp_path):
    report = check(str(folder(tmp_path)), sheet=tmp_path / "sheet.png")
    assert report.faults == []
    assert report.images == 4
    assert set(report.sizes) == {(48, 64)}
    want = [[int((mosaic(i) == k).sum()) for k in range(3)] for i in range(4)]
    assert report.counts.tolist() == want
    rows = cells(report.table)
    assert [row[1] for row in rows] == ["■ ground", "■ water", "■ forest"]
    assert rows[1][2] == f"{np.sum(want, 0)[1] / np.sum(want):.2%}"
    sheet = read_image(tmp_path / "sheet.png")
    colours = {tuple(c) for c in sheet.reshape(-1, 3).tolist()}
    assert {(90, 60, 40), (30, 60, 200), (20, 140, 30)} <= colours, "labels in their colours"
    assert sheet.shape[0] > 300


def test_every_fault_is_listed_with_its_file(tmp_path):
    root = folder(tmp_path, 8)
    (root / "images" / "000.png").write_bytes((root / "images" / "000.png").read_bytes()[:100])
    (root / "labels" / "001.png").unlink()
    write_png(root / "labels" / "002.png", np.zeros((8, 8), np.uint8))
    write_png(root / "labels" / "003.png", np.full((48, 64), 9, np.uint8))
    (root / "images" / "004.png").unlink()
    (root / "labels" / "005.png").write_bytes(b"")
    report = check(str(root), sheet=tmp_path / "sheet.png")
    wanted = {
        "images/000.png": "truncated",
        "images/001.png": "has no label",
        "labels/002.png": "its label 8x8",
        "labels/003.png": "label id 9 is not in",
        "labels/004.png": "is the label of no image",
        "labels/005.png": "the file is empty",
    }
    assert len(report.faults) == len(wanted)
    for name, problem in wanted.items():
        assert any(f.startswith(f"{root / name}: ") and problem in f for f in report.faults), name
    assert "6 faults" in report.table.title
    assert report.counts.sum(1).astype(bool).tolist() == [False, False, False, False, True, True]


def test_images_alone_are_checked_where_there_are_no_labels(tmp_path):
    root = folder(tmp_path / "photos", labelled=False, classes=None)
    (root / "images" / "003.png").write_bytes(b"x")
    report = check(str(root), sheet=tmp_path / "sheet.png")
    assert report.labels is None
    assert len(report.faults) == 1
    assert "no labels" in report.table.title
    assert read_image(tmp_path / "sheet.png").size
    cityscapes(tmp_path / "cs")
    assert check(f"cityscapes:{tmp_path}/cs").images == 4
    assert check(f"cityscapes/val:{tmp_path}/cs").labels.num_classes == 19


def test_a_sheet_is_not_written_among_the_data(tmp_path):
    root = folder(tmp_path / "data", 2)
    before = {path: path.read_bytes() for path in root.rglob("*.png")}
    places = [root / "images" / "000.png", root / "labels" / "001.png", root / "images" / "new.png"]
    for sheet in places:
        with pytest.raises(PipaError, match=r"^--sheet .*lies among the images or labels"):
            check(str(root), sheet=sheet)
    assert {path: path.read_bytes() for path in root.rglob("*.png")} == before


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(PipaError, match="does not exist"):
        check(str(tmp_path / "nowhere"))
    root = folder(tmp_path / "data", classes=None)
    with pytest.raises(PipaError, match="no class table"):
        check(str(root))
    assert not check(str(root), "ground,water,forest").faults
    with pytest.raises(PipaError, match="cannot be written"):
        check(str(root), "a,b,c", sheet=tmp_path / "nowhere" / "sheet.png")


def test_masks_of_0_and_255_are_said_to_have_lost_their_foreground(tmp_path):
    root = folder(tmp_path, 2, classes=None)
    for i in range(2):
        write_png(
            root / "labels" / f"{i:03}.png", np.where(mosaic(i) == 0, 0, 255).astype(np.uint8)
        )
    table = root / "classes.yaml"
    with pytest.raises(PipaError, match=r"`0: background` and `255: object`, .*classes\.yaml"):
        check(str(root))
    _, lost = check(str(root), "background,cell").notes
    assert f"write `0: background` and `255: cell` in {table}" in lost
    table.write_text("0: background\n255: cell\n")
    assert check(str(root)).notes == ()
    table.write_text("0: background\n1: cell\nignore: [255]\n")
    assert check(str(root)).notes == (f"{root}: never in its labels: cell.",)


def test_a_class_that_never_occurs_is_named_and_no_fault(tmp_path):
    root = folder(tmp_path)
    (root / "classes.yaml").write_text("[ground, water, forest, lava, ice]")
    report = check(str(root))
    assert report.notes == (f"{root}: never in its labels: lava, ice.",)
    assert not report.faults


def test_photographs_that_are_all_of_a_telephone_are_said(tmp_path):
    for name in ("IMG_1.HEIC", "sub/IMG_2.heif", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(PipaError, match=r"does not read \(\.heic, \.heif\)\. Convert them"):
        check(str(tmp_path))


def test_statistics_show_shares_and_probabilities(tmp_path):
    rows = cells(stats(str(folder(tmp_path)), temperature=0.5))
    counts = np.array([[(mosaic(i) == k).sum() for k in range(3)] for i in range(4)])
    shares = counts.sum(0) / counts.sum()
    weights = np.exp((1 - shares) / 0.5)
    want = weights / weights.sum()
    assert [row[4] for row in rows] == [f"{p:.1%}" for p in want]
    assert [row[3] for row in rows] == [str((counts[:, k] > 0).sum()) for k in range(3)]
