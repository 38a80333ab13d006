"""The report is one file that shows what the runs hold, and nothing else."""

import base64
import csv
import json
from html.parser import HTMLParser
from xml.etree import ElementTree

import builders
import cv2
import numpy as np
import pytest
import torch
import yaml

from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.evaluation.course import moved_most
from pipa.evaluation.features import nearest, project, scattered
from pipa.evaluation.report import write_report
from pipa.evaluation.sections import calibration_error
from pipa.models.build import create_segmenter
from pipa.models.saved import save_segmenter

AWFUL = ("[/a] ground", "<script>alert(1)</script>", "cost: $x_$ & more")
CLASSES = "".join(f"{i}: {{name: '{name}'}}\n" for i, name in enumerate(AWFUL))
VOID = {"meta", "img", "source", "br", "input"}


class Reader(HTMLParser):
    """Text, pictures and balance of a page."""

    def __init__(self, text):
        super().__init__()
        self.text, self.pictures, self.open, self.classes, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.pictures += [attrs[name] for name in ("src", "srcset") if name in attrs]
        self.classes += (attrs.get("class") or "").split()
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def says(self):
        return " ".join(" ".join(self.text).split())


def picture_of(uri):
    head, data = uri.split(",", 1)
    content = base64.b64decode(data, validate=True)
    if head == "data:image/svg+xml;base64":
        return ElementTree.fromstring(content)
    assert head in {"data:image/png;base64", "data:image/jpeg;base64"}
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A source, a target without labels, and labelled images of it."""
    root = tmp_path_factory.mktemp("data")
    return {
        "source": str(builders.folder(root / "synthetic", 2, classes=CLASSES)),
        "target": str(builders.folder(root / "photos", 3, labelled=False, shift=25, seed=50)),
        "validation": str(builders.folder(root / "labelled", 2, classes=CLASSES, shift=25, seed=9)),
    }


def scores(miou):
    return {
        "miou": miou,
        "accuracy": miou + 30,
        "iou": dict(zip(AWFUL, (miou, 20.0, None), strict=True)),
    }


def write_run(
    folder, data, *, seed=0, miou=42.5, before=30.0, finished=True, name="daformer", judge=0
):
    """A run's folder, without the hours of training."""
    folder.mkdir(parents=True)
    options = {
        "out": str(folder),
        "seed": seed,
        "data": data,
        "method": {"name": name, "start": 50},
        "judge": judge,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(options | {"trainer": {"max_steps": 400}}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        columns = ["lr", "loss/source", "miou", "pseudo/sure", f"iou/{AWFUL[1]}"]
        table = csv.writer(file)
        table.writerow(["step", *columns])
        table.writerows([[step, 1e-3, 1 / step, step / 3, 0.5, 7.0] for step in (49, 99)])
    labels = LabelSpace(AWFUL, ((0, 0, 255), (128, 64, 128), (0, 0, 142)))
    for place, chance in (("model", 1), ("source_only", 0)):
        if finished and (before is not None or chance):
            torch.manual_seed(chance)
            save_segmenter(create_segmenter("small", 3), folder / place, labels)
    if finished:
        stored = {"seed": seed, "seconds": 5.0, "environment": {"git": "abc123", "pipa": "0.1"}}
        stored |= scores(miou) if miou is not None else {}
        if before is not None:
            figures = dict.fromkeys(
                ("score", "agreement", "js", "snd", "information", "confidence"), 0.5
            )
            models = {"adapted": figures, "source-only": figures}
            stored["judgement"] = {"words": "Adaptation helped.", "figures": {"models": models}}
            stored |= {"source_only": scores(before)} if miou is not None else {}
        (folder / "results.json").write_text(json.dumps(stored))
    if finished and miou is not None:
        counts = [[8, 2, 0], [1, 3, 0], [0, 0, 0]]
        rows = [["label", *AWFUL], *([n, *c] for n, c in zip(AWFUL, counts, strict=True))]
        with (folder / "confusion.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def written(runs, path, **options):
    write_report(runs, path, **options)
    return Reader(path.read_text())


def test_a_run_with_everything(tmp_path, data):
    run = write_run(tmp_path / "mine", data)
    page = written([run], tmp_path / "new" / "report.html")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["report.html"]
    text = page.says()
    assert "adapted student: 42.5 mIoU on " + data["validation"] in text
    assert "+12.5 (one seed) against source-only student" in text
    assert "Adaptation helped." in text
    assert f"Scored on: {data['validation']}." in text
    assert "run's own at step 50" in text
    for name in (
        "Course of the training",
        "Loss terms",
        "IoU of each class",
        "Confusion, percent: adapted student",
    ):
        assert name in text
    assert f"{AWFUL[0]} 30.0 42.5 +12.5 {AWFUL[1]}" in text
    assert "adapted student minus source-only student (one seed)" in text
    assert "2 images spread over" in text
    assert "% of the pixels changed" in text
    assert "calibration error" in text
    assert "have their nearest neighbour in their own domain" in text
    assert "abc123" in text
    assert "max_steps: 400" in text
    # of each of two images: image, truth, before, after
    assert [type(picture_of(uri)).__name__ for uri in page.pictures].count("ndarray") == 8
    assert page.tags.count("input") == 2
    assert "nan" not in text


def test_nothing_is_loaded_and_names_are_data(tmp_path, data):
    run = write_run(tmp_path / "<img src=x>", data)
    page = written([run], tmp_path / "report.html", title="</title><script>alert(2)</script>")
    assert page.tags.count("script") == 1
    assert not {"link", "iframe", "object"} & set(page.tags)
    assert all(uri.startswith("data:") for uri in page.pictures)
    assert all(name in page.says() for name in (*AWFUL, "</title><script>alert(2)</script>"))
    text = (tmp_path / "report.html").read_text()
    assert "script-src 'sha256-" in text
    assert not {"http:", "https:", "url("} & set(text.replace("(", "( ").split())
    assert "alert(1)</script>" not in text


def test_the_images_are_sorted_by_change(tmp_path, data):
    page = written([write_run(tmp_path / "mine", data)], tmp_path / "report.html")
    words = page.says().split(" % of the pixels changed")[:-1]
    changes = [int(part.split()[-1]) for part in words]
    assert len(changes) == 2
    assert changes == sorted(changes, reverse=True)


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ({"miou": None}, "There are no scores", "mIoU on"),
        ({"before": None}, "pipa train --judge 16 does", "source-only"),
        ({"finished": False}, "has not ended: it has logged step 100 of 400", "Pictures"),
    ],
)
def test_what_a_run_lacks_is_said(tmp_path, data, options, said, unsaid):
    page = written([write_run(tmp_path / "mine", data, **options)], tmp_path / "report.html")
    assert said in page.says()
    assert unsaid not in page.says()
    assert "Loss terms" in page.says()


def test_without_labels_there_is_a_gallery_of_the_target(tmp_path, data):
    unlabelled = data | {"validation": None}
    page = written([write_run(tmp_path / "mine", unlabelled, miou=None)], tmp_path / "report.html")
    assert f"3 images spread over {data['target']}" in page.says()
    assert "truth" not in page.says().replace("the truth", "")
    assert "Without labels it is not known how often they are right" in page.says()


def test_an_unfinished_run_shows_the_networks_of_its_checkpoint(tmp_path, data):
    run = write_run(tmp_path / "mine", data, finished=False, judge=4)
    torch.manual_seed(1)
    student = create_segmenter("small", 3)
    state = {f"student.{name}": value for name, value in student.state_dict().items()}
    labels = {"names": list(AWFUL), "colours": [[0, 0, 255], [128, 64, 128], [0, 0, 142]]}
    torch.manual_seed(0)
    content = {
        "pytorch-lightning_version": "2.6",
        "state_dict": state,
        "hyper_parameters": {"student": student.config, "labels": labels},
        "callbacks": {"Judge": {"source_only": create_segmenter("small", 3).state_dict()}},
    }
    (run / "checkpoints").mkdir()
    torch.save(content, run / "checkpoints" / "step100.ckpt")
    (run / "checkpoints" / "last.ckpt").write_bytes(b"half of it")
    page = written([run], tmp_path / "report.html", pictures=1)
    assert "has not ended" in page.says()
    assert "source-only student on its left, adapted student on its right" in page.says()
    assert [type(picture_of(uri)).__name__ for uri in page.pictures].count("ndarray") == 4


def test_faulty_images_are_left_out_if_the_run_skipped_them(tmp_path, data):
    labelled = builders.folder(tmp_path / "labelled", 3, classes=CLASSES, shift=25, seed=9)
    (labelled / "images" / "001.png").write_bytes(b"no image")
    faulty = data | {"validation": str(labelled)}
    run = write_run(tmp_path / "mine", faulty)
    assert "There are no pictures" in written([run], tmp_path / "report.html").says()
    run = write_run(tmp_path / "other", faulty | {"on_error": "skip"})
    assert "2 images spread over" in written([run], tmp_path / "report.html").says()


def test_images_that_are_gone_are_said(tmp_path, data):
    gone = data | {"validation": str(tmp_path / "elsewhere")}
    page = written([write_run(tmp_path / "mine", gone)], tmp_path / "report.html")
    assert f"There are no pictures: {tmp_path / 'elsewhere'}" in page.says()
    assert "42.5 mIoU" in page.says()


def test_methods_with_seeds_have_intervals(tmp_path, data):
    """Student's t of two seeds is 12.7: an interval of the mean of 2 and 4 is 3 +- 12.7."""
    runs = {
        "plain": [write_run(tmp_path / f"a{s}", data, seed=s, miou=40.0 + s) for s in (0, 1)],
        "control": [write_run(tmp_path / "b", data, miou=41.0)],
        "more": [write_run(tmp_path / f"c{s}", data, seed=s, miou=42.0 + 3 * s) for s in (0, 1)],
    }
    page = written(runs, tmp_path / "report.html", pictures=1)
    text = page.says()
    assert "more: 43.5 mIoU" in text
    assert "+3.0 [-9.7, +15.7] (2 seeds) against plain" in text
    assert "+1.0 (one seed) against plain" in text
    assert "3 methods" in text
    assert page.classes.count("card") == 3
    assert "more seed 1 adapted" in text


def test_a_single_method_is_compared_with_its_source_only_student(tmp_path, data):
    """Over three seeds: 2, 4 and 6, so 4 +- 4.97, whatever the table compared it with."""
    runs = [write_run(tmp_path / f"a{s}", data, seed=s, miou=32.0 + 2 * s) for s in range(3)]
    page = written({"mine": runs}, tmp_path / "report.html", against=["mine"], pictures=0)
    assert "+4.0 [-1.0, +9.0] (3 seeds) against source-only student" in page.says()
    assert "mean over 3 seeds" in page.says()
    assert "Pictures" not in page.says()


def test_settings_that_differ_are_listed(tmp_path, data):
    first = write_run(tmp_path / "a", data, name="daformer")
    page = written([first, write_run(tmp_path / "b", data, name="mic")], tmp_path / "report.html")
    assert "method.name daformer mic" in page.says()


def test_scores_on_other_images_are_refused(tmp_path, data):
    one = write_run(tmp_path / "one", data)
    other = write_run(tmp_path / "other", data | {"validation": data["source"]})
    with pytest.raises(PipaError, match="is scored on"):
        write_report([one, other], tmp_path / "report.html")


def test_an_unwritable_place_is_said_and_left_alone(tmp_path, data):
    run = write_run(tmp_path / "runs" / "mine", data, finished=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PipaError, match="cannot be written"):
        write_report([run], tmp_path / "file" / "report.html")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(PipaError, match="holds no run"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")


def test_of_many_classes_those_that_moved_most_are_shown():
    lines = {str(i): {"one": [(1, 0.0), (2, float(i))]} for i in range(30)}
    assert moved_most(lines) == [str(i) for i in range(6, 30)]


def test_calibration_is_the_mean_gap_of_the_bins():
    """10 pixels at 0.5 of which 8 are right, 30 at 0.9 of which 24 are."""
    bins = np.array([[10, 8, 5.0], [0, 0, 0], [30, 24, 27.0]])
    assert calibration_error(bins) == pytest.approx((10 * 0.3 + 30 * 0.1) / 40)


def test_domains_that_lie_apart_have_neighbours_of_their_own():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 5))
    classes = np.zeros(60, np.int64)
    mixed = project((points[:30], classes[:30]), (points[30:], classes[30:]))
    assert mixed.expected == pytest.approx(29 / 59)
    assert 0.2 < mixed.apart < 0.8
    far = project((points[:30], classes[:30]), (points[30:] + 50, classes[30:]))
    assert far.apart == 1
    assert np.abs(far.source.mean(axis=0) - far.target.mean(axis=0))[0] > 50
    for i, j in enumerate(nearest(points)):
        distance = np.linalg.norm(points - points[i], axis=1)
        distance[i] = np.inf
        assert j == distance.argmin()


def test_pixels_are_drawn_evenly_over_classes_and_never_without_one():
    label = np.zeros((20, 20), np.uint8)
    label[:2] = 1
    label[5:10] = 255
    rows, columns = scattered(label, 60, np.random.default_rng(0))
    drawn = label[rows, columns]
    assert len(drawn) == 60
    assert 15 < (drawn == 1).sum() <= 40
    assert 255 not in drawn
    assert len(scattered(np.full((3, 3), 255), 5, np.random.default_rng(0))[0]) == 0
