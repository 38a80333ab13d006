"""Labels of other tools: masks of CVAT and VOC, polygons of COCO, tables in other forms."""

import json
import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from builders import folder, mosaic
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.batch import IGNORE_INDEX
from pipa.data.check import check
from pipa.data.coco import fill
from pipa.data.dataset import open_labelled
from pipa.data.find import find
from pipa.data.labelmap import voc_colour
from pipa.data.tables import class_table
from pipa.errors import PipaError
from pipa.files.images import write_png
from pipa.files.paint import colourise

COLOURS = [(0, 0, 0), (10, 128, 11), (200, 0, 40)]
LABELMAP = """\
# label:color_rgb:parts:actions
background:0,0,0::
road:10,128,11::
sky:200,0,40:part,other:action
"""


@pytest.fixture
def cvat(tmp_path):
    """Four images and their masks in colours, as CVAT's "Segmentation mask 1.1" unpacks."""
    made, root = folder(tmp_path / "made"), tmp_path / "cvat"
    shutil.copytree(made / "images", root / "JPEGImages")
    (root / "labelmap.txt").write_text(LABELMAP)
    (root / "SegmentationClass").mkdir()
    for i in range(4):
        ids = mosaic(i).astype(np.uint8)
        write_png(root / "SegmentationClass" / f"{i:03}.png", colourise(ids, COLOURS))
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "default.txt").write_text("000\n001\n003\n")
    return root


@pytest.mark.parametrize("spec", ["voc:{}", "{}"])
def test_cvats_masks_are_read_as_they_unpack(cvat, spec):
    images, labels = open_labelled(spec.format(cvat), role="source")
    assert labels.names == ("background", "road", "sky")
    assert labels.colours == tuple(COLOURS)
    assert [pair.image.name for pair in images.pairs] == ["000.png", "001.png", "003.png"]
    assert np.array_equal(images.load(2).label, mosaic(3))
    target = find(spec.format(cvat), "target")
    assert {pair.image.parent.name for pair in target.pairs} == {"JPEGImages"}


def test_a_class_that_the_run_has_not_is_no_class(cvat):
    images, labels = open_labelled(f"voc:{cvat}", "sky,road", role="source")
    want = np.array([IGNORE_INDEX, 1, 0])[mosaic(0)]
    assert labels.names == ("sky", "road")
    assert np.array_equal(images.load(0).label, want)


def test_voc_has_its_classes_its_splits_and_its_border(cvat):
    (cvat / "labelmap.txt").unlink()
    (cvat / "ImageSets" / "Segmentation" / "val.txt").write_text("002\n")
    ids = mosaic(2).astype(np.uint8)
    ids[:3] = IGNORE_INDEX
    palette = np.array([voc_colour(i) for i in range(256)], np.uint8)
    write_png(cvat / "SegmentationClass" / "002.png", ids, palette)
    images, labels = open_labelled(f"voc:{cvat}", role="validation")
    assert labels.num_classes == 21
    assert labels.colours[1] == (128, 0, 0)
    assert labels.colours[20] == (0, 64, 128)
    assert len(images) == 1
    assert np.array_equal(images.load(0).label, ids)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds 0 classes"),
        ("road", "line 1 is 'road', which is no class"),
        ("road:1,2::", "whose colour is none"),
        ("a:1,2,300::", "whose colour is none"),
        ("a:::\na:::", "two classes are called a"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_labelmap_that_is_none_is_refused(tmp_path, text, problem):
    file = tmp_path / "labelmap.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PipaError, match=problem):
        class_table(str(file))


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """Writes annotations of one image of 8 x 10 pixels; returns the file."""
    monkeypatch.setenv("PIPA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "a.png", np.zeros((8, 10, 3), np.uint8))

    def write(*shapes, **changes):
        content = {
            "images": [{"id": 5, "file_name": "a.png", "height": 8, "width": 10}],
            "categories": [{"id": 90, "name": "car"}, {"id": 3, "name": "road"}],
            "annotations": [
                {"image_id": 5, "category_id": number, "segmentation": shape}
                for number, shape in shapes
            ],
        }
        file = tmp_path / "annotations" / "instances.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content | changes))
        return file

    return write


ROAD = (3, [[0, 4, 10, 4, 10, 8, 0, 8]])
CAR = (90, [[2, 5, 4, 5, 4, 7, 2, 7], [6, 1, 7, 1, 7, 2, 6, 2]])


@pytest.mark.parametrize("spec", ["coco:{}", "{}"])
@pytest.mark.parametrize("shapes", [(ROAD, CAR), (CAR, ROAD)])
def test_polygons_are_painted_the_smaller_on_top(coco, spec, shapes):
    want = np.zeros((8, 10), int)
    want[4:] = 1
    want[5:7, 2:4] = 2
    want[1, 6] = 2
    images, labels = open_labelled(spec.format(coco(*shapes)), role="source")
    assert labels.names == ("background", "road", "car")
    assert np.array_equal(images.load(0).label, want)
    assert not check(spec.format(coco(*shapes))).faults


def test_run_lengths_go_down_the_columns(coco):
    runs = (3, {"counts": [9, 2, 69], "size": [8, 10]})
    images, _ = open_labelled(f"coco:{coco(runs)}", role="source")
    assert np.argwhere(images.load(0).label).tolist() == [[1, 1], [2, 1]]


def test_a_category_called_background_is_it(coco):
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "Background"}]
    shape = (1, [[0, 0, 1, 0, 1, 1, 0, 1]])
    images, labels = open_labelled(f"coco:{coco(shape, categories=categories)}", role="source")
    assert labels.names == ("Background", "car")
    assert images.load(0).label.sum() == 1


def test_an_image_that_comes_later_changes_no_other_ones_label(coco, tmp_path):
    """Painted labels stay in the cache, and the annotations are the same file."""
    images = [{"id": i, "file_name": f"{'cab'[i]}.png", "height": 8, "width": 10} for i in range(3)]
    shapes = [
        {"image_id": i, "category_id": 3, "segmentation": [[0, 0, i + 1, 0, i + 1, 1, 0, 1]]}
        for i in range(3)
    ]
    file = coco(images=images, annotations=shapes)
    write_png(tmp_path / "images" / "c.png", np.zeros((8, 10, 3), np.uint8))
    assert len(find(f"coco:{file}", "source", skipped=[]).pairs) == 2
    write_png(tmp_path / "images" / "b.png", np.zeros((8, 10, 3), np.uint8))
    found, _ = open_labelled(f"coco:{file}", role="source")
    sizes = {found.pairs[i].image.stem: int(found.load(i).label.sum()) for i in range(3)}
    assert sizes == {"c": 1, "a": 2, "b": 3}


@pytest.mark.parametrize(
    ("shape", "changes", "problem"),
    [
        (ROAD, {"categories": []}, "no categories"),
        (ROAD, {"images": [{"id": 5}]}, "no file of annotations"),
        (ROAD, {"images": [{"id": 5, "file_name": "b", "height": 1, "width": 1}]}, "not found"),
        (ROAD, {"images": [{"id": 5, "file_name": "a.png", "height": 0, "width": 1}]}, "a height"),
        (ROAD, {"categories": [{"id": i, "name": "a"} for i in range(2)]}, "of one name"),
        ((77, ROAD[1]), {}, r"a\.png: has an annotation that .*no category has the id 77"),
        ((3, []), {}, "it has a box only"),
        ((3, [[1, 2, 3]]), {}, "needs three points"),
        ((3, [[1, 2, 3, 4, 5, float("nan")]]), {}, "a corner is no number"),
        ((3, {"counts": "abc"}), {}, "packed"),
    ],
)
def test_annotations_that_are_none_are_refused(coco, shape, changes, problem):
    with pytest.raises(PipaError, match=problem):
        find(f"coco:{coco(shape, **changes)}", "source")


def test_a_bad_annotation_costs_its_own_image_alone(coco, tmp_path):
    images = [{"id": i, "file_name": f"{'abc'[i]}.png", "height": 8, "width": 10} for i in range(3)]
    shapes = [
        {"id": 40 + i, "image_id": i, "category_id": number, "segmentation": shape}
        for i, (number, shape) in enumerate([(77, ROAD[1]), ROAD, (3, [[1, 2]])])
    ]
    file = coco(images=images, annotations=shapes)
    for name in "bc":
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((8, 10, 3), np.uint8))
    skipped = []
    assert [pair.image.name for pair in find(str(file), "source", skipped=skipped).pairs] == [
        "b.png"
    ]
    assert [fault.where.name for fault in skipped] == ["a.png", "c.png"]
    with pytest.raises(PipaError, match=rf"a\.png: .* it is annotation 40 .* in {file}"):
        find(str(file), "source")
    (line,) = check(str(file)).faults
    assert line.startswith("2 files: has an annotation that cannot be painted")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=3, max_size=8))
def test_a_pixel_is_filled_if_its_centre_lies_within(corners):
    mask = np.zeros((8, 10), bool)
    fill(mask, np.array(corners, np.float64))
    for row in range(8):
        for column in range(10):
            x, y, inside = column + 0.5, row + 0.5, False
            for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
                if (y1 > y) != (y2 > y):
                    inside ^= x >= x1 + (y - y1) * ((x2 - x1) / (y2 - y1))
            assert mask[row, column] == inside


def test_the_table_in_the_docs_is_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "labels.md").read_text()
    file = tmp_path / "classes.yaml"
    file.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    table = class_table(str(file))
    assert table.labels.names == ("road", "sky", "person")
    assert table.ids == {0: 0, 1: 1, 7: 2, 250: IGNORE_INDEX}
    assert table.colours[0, 0, 0] == IGNORE_INDEX


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("names: [road, sky]\nnc: 2", "`0: road`, `1: sky`"),
        ("names: {0: road, 1: sky}", "`0: road`, `1: sky`"),
        ("classes: {road: 1, sky: 0}", "`0: sky`, `1: road`"),
        ("road: 0\nsky: 1", "`0: road`, `1: sky`"),
        ("road: [1, 2, 3]\nignore: [255]", "`0: {name: road, color: [1, 2, 3]}`"),
        ("- {id: 7, name: road}\n- {id: 8, name: sky}", "`7: road`, `8: sky`"),
        ("'0': road\n'1': sky", "`0: road`, `1: sky`"),
        ("road, sky", "`0: road`, `1: sky`"),
        ("[road, sky, sea, sand]", ""),
        ("0: a\nignore: [void]", "`ignore: [250, [0, 0, 0]]`"),
    ],
)
def test_a_table_in_another_form_is_refused_and_shown_right(tmp_path, text, right):
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    if not right:
        assert class_table(str(file)).labels.num_classes == 4
        return
    with pytest.raises(PipaError) as refused:
        class_table(str(file))
    assert right in refused.value.remedy


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0: a\n0: b", "`0` stands twice"),
        ("true: a", "is no id"),
        ("0: a\n1: b\nignore: [0]", "0 is a class, and under `ignore`"),
        ("0: {name: a, color: [1, 2, 3]}\nignore: [[1, 2, 3]]", "is a class's colour"),
        ("ignore: [0]", "holds no classes"),
        ("0: &a {name: a, <<: *a}", "holds itself"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path, text, problem):
    file = tmp_path / "classes.yaml"
    file.write_text(text)
    with pytest.raises(PipaError, match=problem):
        class_table(str(file))


def test_ignored_ids_and_colours_are_no_class(tmp_path):
    root = folder(tmp_path, kind="colours", classes=None)
    rows = "0: {name: ground, color: [90, 60, 40]}\n1: {name: water, color: [30, 60, 200]}\n"
    (root / "classes.yaml").write_text(f"{rows}ignore: [7, [20, 140, 30]]\n")
    images, _ = open_labelled(str(root), role="source")
    assert np.array_equal(images.load(0).label, np.array([0, 1, IGNORE_INDEX])[mosaic(0)])


def test_one_fault_is_listed_once_with_a_count(tmp_path):
    root = folder(tmp_path, 8)
    for i in range(5):
        write_png(root / "labels" / f"{i:03}.png", np.full((48, 64), 77, np.uint8))
    for i in (5, 6):
        (root / "labels" / f"{i:03}.png").unlink()
    report = check(str(root))
    assert report.count == 7
    missing, unknown = report.faults
    assert missing.startswith("2 files: has no label")
    assert unknown.startswith("5 files: label id 77 is not in")
    assert unknown.endswith("002.png and 2 more.")
    assert "7 faults" in report.table.title


def test_two_images_or_two_labels_of_one_stem_are_a_fault(tmp_path):
    root = folder(tmp_path)
    shutil.copy(root / "images" / "000.png", root / "images" / "000.jpg")
    cv2.imwrite(str(root / "labels" / "001.bmp"), np.zeros((48, 64), np.uint8))
    both, second = check(str(root)).faults
    assert "2 files: is one of 2 images for one label" in both
    assert "001.png: is a second label of one image; the first is" in second
    with pytest.raises(PipaError, match="images for one label"):
        find(str(root), "source")
    assert len(find(str(root), "target").pairs) == 5


def test_pictures_that_are_skipped_are_named(tmp_path, caplog):
    root = folder(tmp_path, labelled=False)
    for name in ("IMG_1.HEIC", "IMG_2.heic", "a.psd", "notes.txt", ".DS_Store"):
        (root / "images" / name).write_bytes(b"x")
    heic, psd = check(str(root)).faults
    assert heic.startswith("2 files: is skipped, since pipa does not read .heic")
    assert "IMG_1.HEIC" in heic
    assert psd.startswith(f"{root / 'images' / 'a.psd'}: is skipped")
    with caplog.at_level(logging.WARNING, "pipa"):
        assert len(find(str(root), "target").pairs) == 4
    assert "IMG_2.heic" in caplog.text
    assert "notes.txt" not in caplog.text
