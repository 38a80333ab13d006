"""Ids against the authors' tables, and class tables that people write, right and wrong."""

from pathlib import Path

import numpy as np
import pytest
from builders import CLASSES, folder, raw_png

from data.golden import RECORD
from pipa.classes import CITYSCAPES, SYNTHIA13, SYNTHIA16, LabelSpace
from pipa.data.dataset import open_labelled
from pipa.data.labels import CITYSCAPES_LABEL_IDS, GTA5_IDS, SYNTHIA_IDS, TRAIN_IDS, ids_table
from pipa.data.tables import class_table, find_table, read_table
from pipa.errors import PipaError
from pipa.files.images import read_label

CAMVID = """\
0: {name: sky,        color: [128, 128, 128], cityscapes: [10]}
1: {name: sign,       color: [192, 128, 128], cityscapes: [6, 7]}
2: {name: car,        color: [64, 0, 128],    cityscapes: [13, 14, 15]}
3: {name: bicyclist,  color: [0, 128, 192],   cityscapes: [12, 17, 18]}
"""


@pytest.mark.parametrize(
    ("table", "name", "last"),
    [(GTA5_IDS, "gta", 34), (SYNTHIA_IDS, "synthia", 22), (CITYSCAPES_LABEL_IDS, "cityscapes", 33)],
)
def test_every_id_becomes_the_authors_train_id(tmp_path, table, name, last):
    truth = np.full(256, 255)
    for raw, train in RECORD[name].items():
        if int(raw) >= 0:
            truth[int(raw)] = train
    ids = np.append(np.arange(last + 1), 255).astype(np.uint16).reshape(1, -1, 1)
    path = tmp_path / "label.png"
    if name == "synthia":  # 16 bits: class, instance, nothing
        path.write_bytes(raw_png(np.concatenate([ids, ids * 9, ids * 0], 2).astype(">u2")))
    else:
        path.write_bytes(raw_png(ids.astype("u1"), np.zeros((256, 3))))
    assert np.array_equal(table.encode(read_label(path), path), truth[ids[..., 0]])


def test_names_palette_and_scored_classes_are_the_authors():
    assert CITYSCAPES.names == tuple(RECORD["CLASSES"])
    assert CITYSCAPES.colours == tuple(map(tuple, RECORD["PALETTE"]))
    assert tuple(RECORD["classes16"]) == SYNTHIA16
    assert tuple(RECORD["classes13"]) == SYNTHIA13


def test_an_id_outside_the_table_is_named():
    with pytest.raises(PipaError, match=r"x\.png: label id 21, 40 is not in Cityscapes' train ids"):
        TRAIN_IDS.encode(np.array([[0, 21, 255, 40]], np.uint8), Path("x.png"))
    with pytest.raises(PipaError, match="label id 300 is not"):
        GTA5_IDS.encode(np.array([[0, 300]], np.uint16), Path("x.png"))


def test_a_label_of_another_mode_is_refused():
    colours = np.array([[[1, 2, 3], [7, 7, 7]]], np.uint8)
    with pytest.raises(PipaError, match=r"x\.png: colour \(1, 2, 3\) is not in GTA5's label ids"):
        GTA5_IDS.encode(colours, Path("x.png"))


def test_ids_stored_as_grey_rgb_are_ids():
    grey = np.repeat(np.array([[[7], [8], [0]]], np.uint8), 3, axis=2)
    assert GTA5_IDS.encode(grey, Path("x.png")).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("kind", ["ids", "palette", "colours"])
def test_all_kinds_of_labels_say_the_same(tmp_path, kind):
    images, labels = open_labelled(str(folder(tmp_path, kind=kind)))
    assert labels.names == ("ground", "water", "forest")
    from builders import mosaic

    assert np.array_equal(images.load(2).label, mosaic(2))


def test_cityscapes_classes_are_grouped_by_the_runs_table(tmp_path):
    (tmp_path / "classes.yaml").write_text(CAMVID)
    run = class_table(str(tmp_path)).labels
    moved = GTA5_IDS.mapped_to(run)
    raw = {own: raw for raw, own in GTA5_IDS.ids.items()}
    truth = {10: 0, 6: 1, 7: 1, 13: 2, 14: 2, 15: 2, 12: 3, 17: 3, 18: 3}
    for train in range(19):
        got = moved.encode(np.array([[raw[train]]], np.uint8), Path("x"))
        assert got.item() == truth.get(train, 255)
    assert run.things == (1, 2, 3)


def test_a_class_without_a_group_is_matched_by_its_name():
    colours = ((0, 0, 0),) * 3
    own = ids_table(LabelSpace(("road", "lane", "sky"), colours, ((0,), (), (10,))))
    moved = own.mapped_to(LabelSpace(("sky", "road", "Lane"), colours, ((10,), (0,), ())))
    assert moved.encode(np.array([[0, 1, 2]]), Path("x")).tolist() == [[1, 2, 0]]
    other = own.mapped_to(LabelSpace(("sky", "road"), colours[:2], ((9,), (0,))))
    assert other.encode(np.array([[0, 1, 2]]), Path("x")).tolist() == [[1, 255, 255]], "groups win"


def test_classes_are_matched_by_name_where_there_are_no_groups():
    own = ids_table(LabelSpace(("b", "A", "c"), ((0, 0, 0),) * 3))
    moved = own.mapped_to(LabelSpace(("a", "B"), ((0, 0, 0),) * 2))
    assert moved.encode(np.array([[0, 1, 2, 255]]), Path("x")).tolist() == [[1, 0, 255, 255]]
    with pytest.raises(PipaError, match="none of its classes"):
        own.mapped_to(LabelSpace(("x", "y"), ((0, 0, 0),) * 2))


@pytest.mark.parametrize(
    ("text", "names", "ids"),
    [
        ("[sky, road]", ("sky", "road"), {0: 0, 1: 1}),
        ("0: sky\n1: road\n", ("sky", "road"), {0: 0, 1: 1}),
        ("255: nucleus\n0: background\n", ("background", "nucleus"), {0: 0, 255: 1}),
        ("3: {name: a, colour: [1, 2, 3]}\n5: b\nignore: [9]", ("a", "b"), {3: 0, 5: 1, 9: 255}),
    ],
)
def test_forms_of_a_class_table(tmp_path, text, names, ids):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    table = read_table(path)
    assert table.labels.names == names
    assert dict(table.ids) == ids
    assert len(set(table.labels.colours)) == len(names)


def test_ignored_colours_are_no_class(tmp_path):
    path = tmp_path / "classes.yaml"
    path.write_text(CLASSES + "ignore: [[0, 0, 0], 7]\n")
    raw = np.array([[[0, 0, 0], [30, 60, 200]]], np.uint8)
    assert read_table(path).encode(raw, path).tolist() == [[255, 1]]
    path.write_text("255: {name: cell, color: [255, 255, 255]}\n0: rest\nignore: [[9, 9, 9]]")
    raw = np.array([[[9, 9, 9], [255, 255, 255]]], np.uint8)
    assert read_table(path).encode(raw, path).tolist() == [[255, 1]]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no classes"),
        ("{", "cannot be read as YAML"),
        ("5", "holds no classes"),
        ("a: b", "`a` is no id"),
        ("300: b", "`300` is no id"),
        ("0: {color: [1, 2, 3]}", "has no name"),
        ("0: {name: a, colr: [1, 2, 3]}", "`colr` of class a is not known"),
        ("0: {name: a, color: [1, 2]}", "is no colour"),
        ("0: {name: a, color: red}", "is no colour"),
        ("0: {name: a, color: [1, 2, 300]}", "is no colour"),
        ("0: {name: a, cityscapes: [19]}", "expected a list of ids 0 to 18"),
        ("0: {name: a, cityscapes: 3}", "expected a list of ids 0 to 18"),
        ("0: a\n1: a", "two classes have the same name"),
    ],
)
def test_a_wrong_class_table_says_what_is_wrong(tmp_path, text, problem):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(PipaError) as caught:
        read_table(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_and_cityscapes_can_be_given_directly(tmp_path):
    assert class_table("background, nucleus").labels.names == ("background", "nucleus")
    assert class_table("cityscapes").labels == CITYSCAPES
    with pytest.raises(PipaError, match=r"nowhere\.yaml is no file"):
        class_table("nowhere.yaml")


def test_the_table_is_found_in_the_folder_or_beside_it(tmp_path):
    root = folder(tmp_path / "data" / "train", classes=None)
    assert find_table(root) is None
    (tmp_path / "data" / "classes.yaml").write_text("[a, b, c]")
    assert find_table(root).labels.names == ("a", "b", "c")
    (root / "classes.yaml").write_text("[d, e, f]")
    assert find_table(root).labels.names == ("d", "e", "f")


def test_the_table_is_found_beside_the_target_of_a_link(tmp_path):
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(folder(tmp_path / "data" / "train", classes=None))
    (tmp_path / "data" / "classes.yaml").write_text("[a, b, c]")
    assert find_table(link).labels.names == ("a", "b", "c")
    (link.parent / "classes.yaml").write_text("[d, e, f]")
    assert find_table(link).labels.names == ("d", "e", "f")


def test_without_a_table_the_error_lists_the_ids_and_what_to_write(tmp_path):
    root = folder(tmp_path / "data", classes=None)
    with pytest.raises(PipaError) as caught:
        open_labelled(str(root))
    assert "label files hold 0, 1, 2" in str(caught.value)
    assert '--data.classes "name0,name1,name2"' in str(caught.value)
    _, labels = open_labelled(str(root), "ground,water,forest")
    assert labels.names == ("ground", "water", "forest")
