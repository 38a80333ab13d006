"""Each original layout, miniature; what is missing, said in a sentence; how a data set is named."""

import importlib
import re
import shutil
import sys
from pathlib import Path

import builders
import numpy as np
import pytest

from pipa.cli import main
from pipa.data.check import check
from pipa.data.data_sets import DATA_SETS, data_set, formats
from pipa.data.dataset import open_labelled
from pipa.data.find import find, parse
from pipa.data.labels import CITYSCAPES_LABEL_IDS, GTA5_IDS, SYNTHIA_IDS
from pipa.errors import PipaError
from pipa.files.cache import cache_folder
from pipa.files.images import write_png
from pipa.streets.cached import streets_folder


def truth(table, seed):
    raw = builders.mosaic(seed, ids=builders._raw_ids(table))
    return np.array([table.ids[i] for i in range(max(table.ids) + 1)])[raw]


@pytest.mark.parametrize(
    ("spec", "build", "table", "seed", "count"),
    [
        ("gta5:{}", builders.gta5, GTA5_IDS, 1, 4),
        ("synthia:{}", builders.synthia, SYNTHIA_IDS, 0, 4),
        ("synthia:{}", lambda r: builders.synthia(r, grey=True), SYNTHIA_IDS, 0, 4),
        ("cityscapes:{}", builders.cityscapes, CITYSCAPES_LABEL_IDS, 100, 2),
        (
            "cityscapes:{}",
            lambda r: builders.cityscapes(r, train_ids=True),
            CITYSCAPES_LABEL_IDS,
            100,
            2,
        ),
        ("acdc:{}", builders.acdc, CITYSCAPES_LABEL_IDS, 200, 4),
        ("acdc:{}", lambda r: builders.acdc(r, split_first=True), CITYSCAPES_LABEL_IDS, 200, 4),
        ("dark_zurich:{}", builders.dark_zurich, CITYSCAPES_LABEL_IDS, 300, 2),
    ],
)
def test_original_layouts_are_read_as_they_are(tmp_path, spec, build, table, seed, count):
    build(tmp_path)
    images, labels = open_labelled(spec.format(tmp_path))
    assert len(images) == count
    assert labels.num_classes == 19
    assert np.array_equal(images.load(0).label, truth(table, seed))


def test_acdc_is_read_as_hrdas_instructions_leave_it(tmp_path):
    """They copy images, and only labels of train ids, into one folder beside the archive's own."""
    for name, raw in {"a": 7, "b": 23}.items():
        for kind, ending in (
            ("rgb_anon", "rgb_anon"),
            ("gt", "gt_labelIds"),
            ("gt", "gt_labelTrainIds"),
        ):
            file = tmp_path / kind / "fog" / "val" / "GOPR1" / f"{name}_{ending}.png"
            shape = (48, 64, 3) if kind == "rgb_anon" else (48, 64)
            value = CITYSCAPES_LABEL_IDS.ids[raw] if "Train" in ending else raw
            file.parent.mkdir(parents=True, exist_ok=True)
            write_png(file, np.full(shape, value, np.uint8))
            if ending != "gt_labelIds":
                (tmp_path / kind / "val").mkdir(exist_ok=True)
                shutil.copy(file, tmp_path / kind / "val")
    images, _ = open_labelled(f"acdc:{tmp_path}")
    assert [pair.image.name for pair in images.pairs] == ["a_rgb_anon.png", "b_rgb_anon.png"]
    assert [set(np.unique(images.load(i).label)) for i in range(2)] == [{0}, {10}]


@pytest.mark.parametrize(
    ("spec", "build", "count"),
    [
        ("gta5:{}", builders.gta5, 4),
        ("cityscapes:{}", builders.cityscapes, 4),
        ("cityscapes/val:{}", builders.cityscapes, 2),
        ("acdc:{}", builders.acdc, 4),
        ("dark_zurich:{}", builders.dark_zurich, 2),
        ("{}", builders.folder, 4),
        ("folder:{}", lambda r: builders.folder(r, labelled=False), 4),
        ("{}/images", builders.folder, 4),
    ],
)
def test_a_target_has_no_labels(tmp_path, spec, build, count):
    build(tmp_path)
    found = find(spec.format(tmp_path), "target")
    assert len(found.pairs) == count
    assert all(pair.label is None for pair in found.pairs)


def test_labels_below_a_target_are_no_images_of_it(tmp_path, caplog):
    for name in ("a.png", "masks/a.png", "more/gt/b.png", "more/b.jpg", "masks/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = find(str(tmp_path), "target")
    assert [pair.image.name for pair in found.pairs] == ["a.png", "c.jpg", "b.jpg"]
    assert f"{tmp_path}: 2 files in masks, more/gt are left out, as labels" in caplog.text
    assert check(str(tmp_path), role="target").notes == found.notes
    assert len(find(str(tmp_path / "more" / "gt"), "target").pairs) == 1


def test_lists_name_images_and_labels(tmp_path):
    source = builders.folder(tmp_path / "data")
    listed = builders.listing(tmp_path / "data" / "list.csv", source)
    images, _ = open_labelled(f"list:{listed}")
    assert np.array_equal(images.load(3).label, builders.mosaic(3))
    plain = tmp_path / "data" / "plain.txt"
    plain.write_text("# target\nimages/000.png\n\nimages/001.png\n")
    assert [p.image.name for p in find(f"list:{plain}", "target").pairs] == ["000.png", "001.png"]
    with pytest.raises(PipaError, match=r"plain\.txt: line 2 has no label"):
        find(f"list:{plain}", "source")
    plain.write_text("\n")
    with pytest.raises(PipaError, match="lists no images"):
        find(f"list:{plain}", "target")
    with pytest.raises(PipaError, match=r"nowhere\.txt: cannot be read"):
        find(f"list:{tmp_path}/nowhere.txt", "target")


def test_names_pair_images_of_any_format_with_labels(tmp_path):
    root = builders.folder(tmp_path)
    (root / "images" / "000.png").rename(root / "images" / "000.PNG")
    (root / "images" / "sub").mkdir()
    (root / "labels" / "sub").mkdir()
    shutil.copy(root / "images" / "001.png", root / "images" / "sub" / "a.b.png")
    shutil.copy(root / "labels" / "001.png", root / "labels" / "sub" / "a.b.png")
    (root / "images" / "._000.png").write_text("left by another system")
    names = [p.image.relative_to(root / "images") for p in find(str(root), "source").pairs]
    assert [str(n) for n in names] == ["000.PNG", "001.png", "002.png", "003.png", "sub/a.b.png"]


@pytest.mark.parametrize(
    ("break_it", "role", "problem"),
    [
        (lambda r: shutil.rmtree(r), "source", "images: the folder does not exist"),
        (lambda r: shutil.rmtree(r), "target", "the folder does not exist"),
        (lambda r: shutil.rmtree(r / "labels"), "source", "labels: the folder does not exist"),
        (lambda r: (r / "labels" / "002.png").unlink(), "source", "002.png: has no label"),
        (lambda r: [p.unlink() for p in (r / "images").iterdir()], "target", "it is empty"),
    ],
)
def test_what_is_missing_is_said(tmp_path, break_it, role, problem):
    root = builders.folder(tmp_path / "data")
    break_it(root)
    with pytest.raises(PipaError) as caught:
        find(str(root), role)
    assert problem in str(caught.value)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gta5", "synthia", "cityscapes", "acdc", "dark_zurich"])
def test_a_wrong_root_says_what_the_layout_is(tmp_path, kind):
    with pytest.raises(PipaError, match=r"(does not exist|no images).* Its layout is"):
        find(f"{kind}:{tmp_path}", "source")


@pytest.mark.parametrize(
    ("spec", "default", "want"),
    [
        ("./a", "folder", ("folder", "", "./a")),
        ("/data/gta5", "gta5", ("gta5", "", "/data/gta5")),
        ("gta5:/data", "folder", ("gta5", "", "/data")),
        ("cityscapes/val:/data", "folder", ("cityscapes", "val", "/data")),
        ("C:/data", "folder", ("folder", "", "C:/data")),
        ("streets", "folder", ("streets", "", "")),
        ("streets/test", "folder", ("streets", "test", "")),
        ("streets:gap=0.3", "folder", ("streets", "", "gap=0.3")),
    ],
)
def test_specifications(spec, default, want):
    assert parse(spec, default) == want


def test_a_folder_with_the_name_of_a_benchmark_is_not_passed_over(tmp_path, monkeypatch):
    builders.folder(tmp_path / "streets", labelled=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipaError, match=r"Write ./streets for the folder, streets: for"):
        find("streets", "target")
    assert len(find("./streets", "target").pairs) == 4
    assert parse("streets:") == ("streets", "", "")


def test_linked_folders_are_searched_and_hidden_ones_are_not(tmp_path):
    root = builders.folder(tmp_path / "synthetic", 2)
    other = builders.folder(tmp_path / "more", 3)
    for kind in ("images", "labels"):
        (root / kind / "more").symlink_to(other / kind)
        (root / kind / "round").symlink_to(root / kind)
    hidden = root / "images" / ".thumbnails"
    shutil.copytree(other / "images", hidden)
    found = find(str(root), "source").pairs
    assert [pair.image.parent.name for pair in found] == ["images"] * 2 + ["more"] * 3
    assert all(pair.label.parent.name in ("labels", "more") for pair in found)


@pytest.mark.parametrize(("spec", "default"), [("kitti:/data", "folder"), ("/data", "kitti")])
def test_an_unknown_format_is_named_with_the_known_ones(spec, default):
    with pytest.raises(PipaError, match=r"the format kitti is not known.* Known: folder, gta5"):
        find(spec, "source", default)


def test_a_format_without_splits_refuses_one(tmp_path):
    with pytest.raises(PipaError, match=r"gta5 has no splits. Write gta5:PATH"):
        find(f"gta5/val:{builders.gta5(tmp_path)}", "source")


MINE = """
from pipa.data.data_sets import data_set
from pipa.data.labels import TRAIN_IDS
from pipa.data.layouts import Files, mirrored

def plain(root, split, labelled):
    return mirrored(root, f"pictures/{split}", f"truth/{split}", labelled, TRAIN_IDS)

SPLITS = {"source": "learn", "target": "learn", "validation": "look"}

@data_set("mine", splits=SPLITS)
def mine(root, split, labelled):
    '''My own: `pictures/SPLIT/*.png`, `truth/SPLIT/*.png`.'''
    return plain(root, split, labelled)

def few(root):
    return []

def wrong(root, split, labelled):
    return [root]

def empty(root, split, labelled):
    return Files(root, [], None)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder in a layout of its own, and a module in the current folder that lists it."""
    (tmp_path / "my_data.py").write_text(MINE)
    (tmp_path / "half.py").write_text("import nowhere_to_be_found")
    made = builders.folder(tmp_path / "made")
    for split in ("train", "learn", "look", "night"):
        for kind, name in (("images", "pictures"), ("labels", "truth")):
            shutil.copytree(made / kind, tmp_path / "root" / name / split)
    (tmp_path / "root" / "pictures" / "look" / "000.png").unlink()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "root"
    sys.modules.pop("my_data", None)
    DATA_SETS.pop("mine", None)


@pytest.mark.parametrize(
    ("spec", "role", "where", "count"),
    [
        ("my_data.plain", "source", "train", 4),
        ("my_data.plain/night", "source", "night", 4),
        ("my_data.mine", "source", "learn", 4),
        ("my_data.mine", "validation", "look", 3),
    ],
)
def test_a_function_of_ones_own_lists_a_data_set(own, spec, role, where, count):
    found = find(f"{spec}:{own}", role)
    assert len(found.pairs) == count
    for pair in found.pairs:
        assert pair.image.parent == own / "pictures" / where
        assert pair.label == own / "truth" / where / pair.image.name
    target = find(str(own), "target", spec.split("/")[0])
    assert all(pair.label is None for pair in target.pairs)
    images, labels = open_labelled(f"{spec}:{own}", role=role)
    assert labels.num_classes == 19
    assert np.array_equal(images.load(count - 1).label, builders.mosaic(3))


def test_an_imported_module_may_enter_a_name(own, monkeypatch):
    with pytest.raises(PipaError, match="the format mine is not known"):
        find(f"mine:{own}", "source")
    monkeypatch.syspath_prepend(own.parent)
    importlib.import_module("my_data")
    assert len(find(f"mine:{own}", "validation").pairs) == 3
    assert formats()["mine"] == "My own: `pictures/SPLIT/*.png`, `truth/SPLIT/*.png`."
    importlib.reload(sys.modules["my_data"])  # as a notebook's cell that runs again


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("nowhere.data:x", "nowhere.data: cannot be imported .*No module named"),
        ("half.data:x", "half.data: cannot be imported .*No module named 'nowhere_to_be_found'"),
        ("my_data.mist:x", "my_data.mist: cannot be imported .*no attribute 'mist'"),
        ("my_data.SPLITS:x", "my_data.SPLITS: cannot be used .*is not a callable"),
        ("my_data.few:x", "my_data.few: cannot be used .*too many positional arguments"),
        ("my_data.wrong:x", "my_data.wrong: gave a list, not Files"),
        ("my_data.empty:x", "my_data.empty:x: lists no images"),
        ("my_data.plain:x", "pictures/train: the folder does not exist"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_in_a_line(own, spec, problem):
    with pytest.raises(PipaError, match=problem) as caught:
        find(spec, "source")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "problem"), [("gta5", "is defined in"), ("a/b", "is no name")])
def test_a_name_that_cannot_be_a_format_is_refused(name, problem):
    with pytest.raises(PipaError, match=problem):
        data_set(name)(lambda root, split, labelled: None)


def test_help_lists_every_format_with_its_layout(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name, about in formats().items():
        assert about.endswith(".")
        assert re.search(rf"^  {name} +{re.escape(about)}$", shown, re.MULTILINE), name


def test_streets_are_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PIPA_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    few = "source=2,target=3,validation=1,test=1,height=32,width=64"
    roles = {"source": 2, "target": 3, "validation": 1}
    for role, count in roles.items():
        assert len(find(f"streets:{few}", role).pairs) == count
    folder = streets_folder(few)
    before = (folder / "classes.yaml").stat().st_mtime_ns
    assert streets_folder(few) == folder
    assert (folder / "classes.yaml").stat().st_mtime_ns == before
    assert streets_folder(few + ",seed=1") != folder
    for wrong in ("sorce=2", "source", "gap=7"):
        with pytest.raises(PipaError):
            streets_folder(wrong)
    assert {p.name for p in tmp_path.iterdir()} == {
        folder.name,
        streets_folder(few + ",seed=1").name,
    }


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("PIPA_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "pipa"
