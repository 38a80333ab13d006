"""The report is one file that shows its input, and nothing else."""

import base64
import math
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.evaluation.report import GalleryRow, RunRecord, write_report
from pipa.evaluation.scores import Result

LABELS = LabelSpace(("sky", "road", "car"), ((0, 0, 255), (128, 64, 128), (0, 0, 142)))
VOID = {"meta", "img", "source", "br"}


class Reader(HTMLParser):
    """Text, pictures and balance of a page."""

    def __init__(self, text):
        super().__init__()
        self.text, self.pictures, self.open, self.classes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.pictures += [attrs[name] for name in ("src", "srcset") if name in attrs]
        self.classes += attrs.get("class", "").split()
        assert tag not in {"script", "link", "iframe"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
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


def runs():
    curve = [(0, 1.0), (100, 0.5)]
    return {
        "source_only": RunRecord(
            "source-only",
            Result(30.0, {"sky": 60.0, "road": 0.0, "car": None}, accuracy=70.5),
            {"loss/source": curve, "miou": [(50, 20.0), (100, 30.0)]},
        ),
        "pipa": RunRecord(
            "PiPa <1>",
            Result(42.5, {"sky": 65.0, "road": 20.0, "car": None}),
            {"loss/source": curve, "loss/patch": curve, "miou": [(50, 25.0), (100, 42.5)]},
        ),
    }


def gallery(width=8):
    image = np.full((4, width, 3), 90, np.uint8)
    truth = np.zeros((4, width), np.uint8)
    truth[0] = 255
    guess = truth.copy()
    guess[1] = 1
    return [GalleryRow(image, truth, {"source_only": guess, "pipa": truth % 255})]


def written(folder, *args, **kwargs):
    path = folder / "new" / "report.html"
    write_report(path, *args, labels=LABELS, **kwargs)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return Reader(path.read_text())


def test_it_says_what_the_runs_did(tmp_path):
    page = written(tmp_path, "Streets & co", runs(), gallery(), {"Seed": "0"})
    text = page.says()
    assert "Streets & co" in text
    assert "PiPa <1> reaches 42.5 mIoU on held-out images: 12.5 above source-only." in text
    assert "+12.5 against source-only" in text
    assert "70.5 % of the pixels right" in text
    assert "sky 60.0 65.0 +5.0" in text
    assert "road 0.0 20.0 +20.0" in text
    assert "car - - -" in text
    assert "source-only 67 % right" in text
    assert "PiPa <1> 100 % right" in text
    assert "Seed 0" in text


def test_everything_is_inside(tmp_path):
    page = written(tmp_path, "Streets", runs(), gallery())
    kinds = [type(picture_of(uri)).__name__ for uri in page.pictures]
    # two figures of training and one of classes, each light and dark; image, truth, two runs
    assert kinds.count("Element") == 6
    assert kinds.count("ndarray") == 4
    text = (tmp_path / "new" / "report.html").read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text


def test_the_legend_holds_the_classes_that_are_seen(tmp_path):
    text = written(tmp_path, "Streets", {}, gallery()).says()
    assert "Pictures sky road no class" in text
    assert "car" not in text


def test_label_maps_keep_their_colours(tmp_path):
    page = written(tmp_path, "Streets", {}, gallery())
    truth = picture_of(page.pictures[1])
    assert truth[0, 0].tolist() == [0, 0, 0]
    assert truth[1, 0].tolist() == [0, 0, 255]


def test_large_pictures_are_reduced(tmp_path):
    page = written(tmp_path, "Streets", {}, gallery(width=1500))
    assert [picture_of(uri).shape[1] for uri in page.pictures] == [500] * 4


def test_it_owns_a_loss(tmp_path):
    worse = {"a": RunRecord("a", Result(40.0, {"sky": 40.0}))}
    worse["b"] = RunRecord("b", Result(38.0, {"sky": 38.0}))
    page = written(tmp_path, "Streets", worse)
    assert "b reaches 38.0 mIoU on held-out images: 2.0 below a." in page.says()
    assert "down" in page.classes
    assert "up" not in page.classes


@pytest.mark.parametrize("count", [0, 1])
def test_little_to_say(tmp_path, count):
    run = RunRecord("PiPa", Result(math.nan, {"sky": None}))
    unlabelled = GalleryRow(np.zeros((4, 6, 3), np.uint8), None, {})
    page = written(tmp_path, "Streets", {"pipa": run} if count else {}, [unlabelled])
    assert "Streets" in page.says()
    assert "nan" not in page.says()


def test_an_unwritable_place_is_said_and_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PipaError, match="cannot be written"):
        write_report(tmp_path / "file" / "report.html", "Streets", {}, labels=LABELS)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
