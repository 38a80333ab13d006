"""Scores against the authors' numbers and plain loops, and invariants of scores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from rich.console import Console
from torch.testing import assert_close

from pipa.classes import CITYSCAPES, SYNTHIA13, SYNTHIA16, LabelSpace
from pipa.errors import PipaError
from pipa.evaluation.scores import Result, Scores, best_of, comparison_table, gain, score_table

# shared/golden/open/miou.npz (the authors' mmseg/core/evaluation/metrics.py); `means` holds
# mIoU_nanmean, mAcc, mIoU16, mIoU13 of its meta.json.
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "miou.npz")
THREE = LabelSpace(("sky", "road", "car"), ((0, 0, 255), (128, 64, 128), (0, 0, 142)))


def scored(labels, prediction, label):
    scores = Scores(labels)
    scores.update(torch.as_tensor(prediction), torch.as_tensor(label))
    return scores


def plain(names, prediction, label):
    """mIoU and IoU in percent, pixel by pixel."""
    iou = {}
    for c, name in enumerate(names):
        both = either = 0
        for p, t in zip(prediction.ravel().tolist(), label.ravel().tolist(), strict=True):
            if t != 255:
                both += p == c and t == c
                either += p == c or t == c
        iou[name] = 100 * both / either if either else None
    known = [value for value in iou.values() if value is not None]
    return sum(known) / len(known) if known else math.nan, iou


@pytest.mark.parametrize("case", ["rand", "missing", "small"])
def test_equal_to_the_authors_evaluation(case):
    scores = scored(CITYSCAPES, GOLDEN[f"{case}/pred"], GOLDEN[f"{case}/gt"])
    result = scores.result()
    miou, mean_accuracy, miou16, miou13 = 100 * GOLDEN[f"{case}/means"]
    assert result.miou == pytest.approx(miou, rel=1e-12)
    assert result.mean_accuracy == pytest.approx(mean_accuracy, rel=1e-12)
    assert result.accuracy == pytest.approx(100 * GOLDEN[f"{case}/aAcc"].item(), rel=1e-12)
    assert scores.subset(SYNTHIA16).miou == pytest.approx(miou16, rel=1e-12)
    assert scores.subset(SYNTHIA13).miou == pytest.approx(miou13, rel=1e-12)
    for ours, theirs in ((result.iou, "IoU"), (result.class_accuracy, "Acc")):
        values = [math.nan if value is None else value for value in ours.values()]
        np.testing.assert_allclose(values, 100 * GOLDEN[f"{case}/{theirs}"], rtol=1e-12)


ids = npst.arrays(np.uint8, (2, 4, 5), elements=st.sampled_from([0, 1, 2, 255]))


@settings(max_examples=40, deadline=None)
@given(ids, ids)
def test_is_the_definition(prediction, label):
    result = scored(THREE, prediction, label).result()
    miou, iou = plain(THREE.names, prediction, label)
    assert result.miou == pytest.approx(miou, rel=1e-12, nan_ok=True)
    assert result.iou == {
        name: None if value is None else pytest.approx(value, rel=1e-12)
        for name, value in iou.items()
    }


@settings(max_examples=20, deadline=None)
@given(ids, ids)
def test_images_may_come_in_any_parts(prediction, label):
    whole = scored(THREE, prediction, label)
    parts = scored(THREE, prediction[1:], label[1:])
    parts.update(torch.tensor(prediction[:1]), torch.tensor(label[:1]))
    assert_close(parts.confusion.confmat, whole.confusion.confmat)


def test_what_two_processes_counted_adds_up():
    label = torch.tensor([[[0, 0, 1]], [[1, 2, 255]]])
    guess = torch.tensor([[[0, 1, 1]], [[2, 2, 0]]])
    first, second = scored(THREE, guess[:1], label[:1]), scored(THREE, guess[1:], label[1:])
    first.confusion.merge_state(second.confusion)  # the reduction that a gather uses
    assert first.result() == scored(THREE, guess, label).result()


def test_a_subset_keeps_misses_outside_it():
    label = torch.tensor([[[0, 0, 1, 2]]])
    guess = torch.tensor([[[0, 2, 1, 1]]])
    part = scored(THREE, guess, label).subset([0, 1])
    assert part.iou == {"sky": 50.0, "road": 50.0}
    assert part.accuracy == pytest.approx(200 / 3)


def test_nothing_labelled_is_no_number():
    empty = torch.full((1, 2, 2), 255)
    result = scored(THREE, torch.zeros_like(empty), empty).result()
    assert math.isnan(result.miou)
    assert result.iou == {"sky": None, "road": None, "car": None}
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["miou"] is None


def test_reset_forgets_and_the_state_is_not_saved():
    scores = scored(THREE, torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2).long())
    assert not scores.state_dict()
    scores.reset()
    assert math.isnan(scores.result().miou)


def test_a_result_survives_its_file(tmp_path):
    result = scored(THREE, torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]])).result()
    path = tmp_path / "new" / "scores.json"
    result.write(path)
    assert Result.from_dict(json.loads(path.read_text())) == result
    assert [file.name for file in path.parent.iterdir()] == ["scores.json"]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PipaError, match=r"file/scores\.json: cannot be written"):
        Result(50.0, {"sky": 50.0}).write(tmp_path / "file" / "scores.json")


def shown(table):
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_table_of_one_result():
    text = shown(score_table(Result(40.0, {"sky": 80.0, "car": 0.0, "bus": None})))
    rows = {line.split()[1]: line.split() for line in text.splitlines() if line.startswith("│")}
    assert rows["sky"][3] == "80.0"
    assert rows["sky"][5] == "█" * 16
    assert rows["bus"][3] == "-"
    assert rows["mean"][3] == "40.0"


def test_the_table_of_three_methods_has_a_gain():
    results = {
        "source_only": Result(30.0, {"sky": 60.0, "car": 0.0, "bus": None}),
        "control": Result(35.0, {"sky": 70.0, "car": 0.0, "bus": None}),
        "pipa": Result(32.0, {"sky": 55.0, "car": 0.0, "bus": 41.0}),
    }
    cells = [
        [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]]
        for line in shown(comparison_table(results)).splitlines()
        if line[0] in "┃│"
    ]
    assert cells == [
        ["class", "source-only", "control", "PiPa", "gain"],
        ["sky", "60.0", "70.0", "55.0", "-5.0"],
        ["car", "0.0", "0.0", "0.0", "0.0"],
        ["bus", "-", "-", "41.0", "-"],
        ["mIoU", "30.0", "35.0", "32.0", "+2.0"],
    ]


def test_gain_and_best_of_what_is_known():
    assert gain([1.0, None, 4.0]) == 3.0
    assert gain([1.0]) is None
    assert gain([None, 4.0]) is None
    assert best_of([1.0, None, math.nan, 4.0]) == 4.0
    assert best_of([2.0, 2.0]) is None
