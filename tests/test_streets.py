"""Streets: the same pixels for a seed, sensible streets, and a folder like users' own data."""

import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipa.errors import PipaError
from pipa.files.images import read_image, read_label
from pipa.streets import street, write_streets
from pipa.streets.camera import Camera
from pipa.streets.gap import CAMERA, GAME
from pipa.streets.placing import sample_scene
from pipa.streets.render import _labels
from pipa.streets.shapes import FaceMap, patches, prism
from pipa.streets.surfaces import SURFACES

PRESENT = [c for c in range(19) if c not in (16, 17)]  # train and motorcycle never occur
THIN = {3, 4, 5, 6, 7, 9, 11, 12, 18}  # small or rare in real streets too

seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def labels() -> dict[str, np.ndarray]:
    return {
        domain: np.stack([street(seed, domain)[1] for seed in range(100)])
        for domain in ("game", "camera")
    }


@pytest.mark.parametrize("domain", ["game", "camera"])
def test_same_seed_same_pixels(domain: str) -> None:
    first, second, other = (street(seed, domain) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != other[0]).mean() > 0.5


def test_other_images_drawn_in_between_change_nothing() -> None:
    before = street(3, "camera")[0]
    street(4, "game", height=64, width=96)
    np.testing.assert_array_equal(street(3, "camera")[0], before)


def test_without_a_gap_the_camera_sees_what_the_game_shows() -> None:
    for seed in range(5):
        game, camera = street(seed, "game"), street(seed, "camera", gap=0.0)
        np.testing.assert_array_equal(game[0], camera[0])
        np.testing.assert_array_equal(game[1], camera[1])


def test_a_larger_gap_is_a_larger_difference() -> None:
    def away(gap: float) -> float:
        pairs = ((street(s, "game")[0], street(s, "camera", gap=gap)[0]) for s in range(12))
        return float(np.mean([np.abs(a.astype(float) - b).mean() for a, b in pairs]))

    near, middle, far = away(0.1), away(0.5), away(1.0)
    assert 0 < near < middle < far
    assert GAME.towards(CAMERA, 0.0) == GAME
    assert GAME.towards(CAMERA, 1.0) == CAMERA


@pytest.mark.parametrize(("height", "width"), [(128, 256), (96, 96), (33, 50), (256, 512)])
def test_size_and_type(height: int, width: int) -> None:
    image, label = street(0, "camera", height=height, width=width)
    assert image.shape == (height, width, 3)
    assert label.shape == (height, width)
    assert image.dtype == label.dtype == np.uint8
    assert image.std() > 10


def test_only_cityscapes_train_ids(labels: dict[str, np.ndarray]) -> None:
    for maps in labels.values():
        assert set(np.unique(maps)) == {*PRESENT, 255}
        assert (maps == 255).mean() < 0.01


@pytest.mark.parametrize("domain", ["game", "camera"])
def test_every_class_has_its_share(labels: dict[str, np.ndarray], domain: str) -> None:
    maps = labels[domain]
    for c in PRESENT:
        share, images = (maps == c).mean(), (maps == c).any(axis=(1, 2)).sum()
        assert share > (0.004 if c in THIN else 0.015), f"class {c}: {share:.4f}"
        assert images >= 50, f"class {c} in {images} of 100"


def test_domains_share_the_distribution_of_scenes(labels: dict[str, np.ndarray]) -> None:
    game, camera = (np.bincount(labels[d].ravel(), minlength=19)[PRESENT] for d in labels)
    ratio = camera / game
    assert ratio.min() > 0.55
    assert ratio.max() < 1.8


def test_context(labels: dict[str, np.ndarray]) -> None:
    for maps in labels.values():
        rows = np.arange(128)[None, :, None] * np.ones_like(maps)
        assert rows[maps == 10].mean() < rows[maps == 2].mean() < rows[maps == 0].mean()
        below = maps[:, 1:][(maps[:, :-1] == 13) & (maps[:, 1:] != 13)]  # what cars stand on
        assert Counter(below.tolist()).most_common(1)[0][0] == 0


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_nothing_stands_in_another_thing(seed: int) -> None:
    things = sample_scene(np.random.default_rng(seed)).things
    for i, one in enumerate(things):
        for other in things[:i]:
            apart = (
                one.footprint.x1 <= other.footprint.x0
                or other.footprint.x1 <= one.footprint.x0
                or one.footprint.z1 <= other.footprint.z0
                or other.footprint.z1 <= one.footprint.z0
            )
            assert apart, f"{one.kind} stands in {other.kind}"


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_things_stand_where_they_belong(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed))
    vehicles = ("car", "truck", "bus", "rider", "rider_behind")
    for thing in scene.things:
        side, (ground, left, right) = np.sign(thing.x), scene.ground(thing.x, thing.z)
        assert left < thing.x < right
        if thing.kind in vehicles:
            assert ground == "road"
        elif thing.kind == "person" and ground == "road":  # on the crossing, or a side street's
            assert scene.plan.crossing or abs(thing.x) > scene.plan.edge(int(side))
        elif thing.kind == "person":
            assert ground == "walk"
        else:
            assert abs(thing.x) > scene.plan.edge(int(side))
        assert thing.footprint.z0 >= 3.5
    for side in (-1, 1):
        row = [s for s in scene.segments if s.side == side]
        assert all(a.z1 == b.z0 for a, b in pairwise(row))


def test_labels_are_the_majority_of_four_points() -> None:
    rng = np.random.default_rng(0)
    faces = len(SURFACES)
    index = rng.integers(faces, size=(64, 64)).astype(np.uint16)
    index[rng.random(index.shape) < 0.6] = 3  # so that majorities occur
    ones = np.ones(faces)
    found = _labels(FaceMap(index, np.arange(faces), ones, np.zeros(faces, dtype=int), ones))
    classes = np.array([surface.label for surface in SURFACES])[index]
    for y in range(32):
        for x in range(32):
            counts = Counter(classes[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist())
            assert counts[int(found[y, x])] == max(counts.values())


def test_the_camera_is_a_pinhole() -> None:
    camera = Camera(1.0, 1.5, 200.0, 0.0, 0.0, 60.0, (128, 256), 0.0)
    pixels, depth = camera.project(np.array([[1.0, 1.5, 10.0], [3.0, 0.0, 20.0]]))
    np.testing.assert_allclose(pixels, [[128, 60], [128 + 200 * 2 / 20, 60 + 200 * 1.5 / 20]])
    np.testing.assert_allclose(depth, [10, 20])
    rolled = Camera(1.0, 1.5, 200.0, 0.0, np.pi / 2, 60.0, (128, 256), 0.0)
    pixels, _ = rolled.project(np.array([[3.0, 1.5, 20.0]]))
    np.testing.assert_allclose(pixels, [[128, 80]], atol=1e-9)


def test_faces_of_a_prism_look_outwards() -> None:
    faces = prism((-1.0, 1.0, -2.0, 2.0), (-1.0, 1.0, -2.0, 2.0), (0.0, 3.0))
    outwards = {
        "rear": (0, 0, -1), "front": (0, 0, 1), "left": (-1, 0, 0), "right": (1, 0, 0),
        "top": (0, 1, 0),
    }  # fmt: skip
    for name, corners in faces.items():
        # X right, Y up, Z forward is a left-handed system: the cross product is the other way
        normal = -np.cross(corners[1] - corners[0], corners[2] - corners[1])
        np.testing.assert_array_equal(np.sign(normal), outwards[name])


def test_patches_lie_where_the_spans_say() -> None:
    corners = np.array([(0, 0, 0), (4, 0, 0), (4, 2, 0), (0, 2, 0)], dtype=float)
    found = patches(corners, [(0.0, 0.5), (0.5, 1.0)], [(0.5, 1.0)])
    np.testing.assert_allclose(found[0], [(0, 1, 0), (2, 1, 0), (2, 2, 0), (0, 2, 0)])
    np.testing.assert_allclose(found[1], [(2, 1, 0), (4, 1, 0), (4, 2, 0), (2, 2, 0)])


SMALL = {"source": 3, "target": 3, "validation": 2, "test": 2, "height": 32, "width": 64}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets") / "data"
    write_streets(folder, **SMALL, workers=1)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_layout(written: Path) -> None:
    assert sorted(files(written)) == sorted(
        ["classes.yaml"]
        + [f"{s}/{kind}/00000{i}.png" for s, n in (("source", 3), ("val", 2), ("test", 2))
           for kind in ("images", "labels") for i in range(n)]
        + [f"target/images/00000{i}.png" for i in range(3)]
    )  # fmt: skip


def test_the_target_has_no_labels(written: Path) -> None:
    assert [entry.name for entry in (written / "target").iterdir()] == ["images"]


def test_files_hold_what_is_drawn(written: Path) -> None:
    image, label = street(0, "game", height=32, width=64)
    np.testing.assert_array_equal(read_image(written / "source/images/000000.png"), image)
    np.testing.assert_array_equal(read_label(written / "source/labels/000000.png"), label)


def test_classes_are_those_of_cityscapes(written: Path) -> None:
    table = yaml.safe_load((written / "classes.yaml").read_text())
    assert list(table) == list(range(19))
    assert table[0] == {"name": "road", "color": [128, 64, 128], "cityscapes": [0]}
    assert table[18] == {"name": "bicycle", "color": [119, 11, 32], "cityscapes": [18]}


def test_splits_show_other_streets(written: Path) -> None:
    images = [content for name, content in files(written).items() if "images" in name]
    assert len(set(images)) == 10


def test_another_seed_shows_other_streets(written: Path, tmp_path: Path) -> None:
    write_streets(tmp_path / "other", **SMALL, workers=1, seed=1)
    first, second = files(written), files(tmp_path / "other")
    assert not {first[f] for f in first if "images" in f} & set(second.values())


def test_files_do_not_depend_on_processes(written: Path, tmp_path: Path) -> None:
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (0, 0), 3)  # starts OpenCV's threads
    threads, calls = cv2.getNumThreads(), []
    write_streets(tmp_path / "two", **SMALL, workers=2, progress=lambda *n: calls.append(n))
    assert files(tmp_path / "two") == files(written)
    assert calls == [(i, 10) for i in range(1, 11)]
    assert cv2.getNumThreads() == threads


def test_an_empty_folder_is_filled(written: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_streets(tmp_path / "empty", **SMALL, workers=1)
    assert files(tmp_path / "empty") == files(written)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PipaError, match="not an empty folder"):
        write_streets(tmp_path, **SMALL)
    assert files(tmp_path) == {"mine.txt": b"mine"}


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_streets(tmp_path / "new", **SMALL, workers=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PipaError, match="cannot be written"):
        write_streets(tmp_path / "file" / "inside", **SMALL, workers=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gap": 1.5}, "gap is 1.5"),
        ({"gap": -0.1}, "gap is -0.1"),
        ({"height": 8}, "too small"),
        ({"seed": -1}, "seed is -1"),
        ({"source": -1}, "number of images of source is -1"),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(PipaError, match=message):
        write_streets(tmp_path / "new", **(SMALL | wrong), workers=1)
    assert list(tmp_path.iterdir()) == []


def test_drawing_needs_no_torch() -> None:
    code = (
        "import sys, pipa.streets as s; assert 'cv2' not in sys.modules; "
        "s.street(0, 'game'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
