"""Each original layout, miniature; what is missing, said in a sentence; how a data set is named."""

import shutil
from pathlib import Path

import builders
import numpy as np
import pytest

from pipa.data.labels import CITYSCAPES_LABEL_IDS, GTA5_IDS, SYNTHIA_IDS
from pipa.data.opening import open_labelled
from pipa.data.specs import cache_folder, find, parse, streets_folder
from pipa.errors import PipaError


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


@pytest.mark.parametrize(("spec", "default"), [("kitti:/data", "folder"), ("/data", "kitti")])
def test_an_unknown_format_is_named_with_the_known_ones(spec, default):
    with pytest.raises(PipaError, match=r"the format kitti is not known.* Known: folder, gta5"):
        parse(spec, default)


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
