"""Figures of the course of a training, from the `metrics.csv` of its runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipa.evaluation.plots import Series, curves
from pipa.evaluation.record import RunRecord
from pipa.evaluation.runs import UNKNOWN, scored_on

_PANELS = 24
"""Maximum number of classes that have a panel."""
_LOSS, _IOU = "loss/", "iou/"
_COURSE = {
    "lr": "learning rate",
    "pseudo/sure": "sure, percent",
    "judge/score": "score, no labels",
    "judge/same": "unchanged, percent",
}
"""Columns of `metrics.csv` that show the course of a training, and their titles."""
_SHARES = {"pseudo/sure", "judge/same"}
_COURSE_NOTE = {
    "pseudo/sure": "sure: pixels whose pseudo-label reaches the teacher's confidence",
    "judge/same": "unchanged: pixels with the class that the source-only student gave them",
}


def curve_figures(
    records: Mapping[str, Sequence[RunRecord]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Figures of the training: score, losses, learning rate, pseudo-labels, IoU of each class."""
    columns = dict.fromkeys(
        name for runs in records.values() for run in runs for name in run.series
    )
    losses = {name.removeprefix(_LOSS): name for name in columns if name.startswith(_LOSS)}
    classes = moved_most({n: _lines(records, n) for n in columns if n.startswith(_IOU)})
    all_shown = len(classes) == sum(name.startswith(_IOU) for name in columns)
    each = (
        "IoU of each class" if all_shown else f"IoU of the {len(classes)} classes that moved most"
    )
    course = {title: name for name, title in _COURSE.items() if name in columns}
    score = {"": "miou"} if "miou" in columns else {}
    images = {scored_on(run.options) for runs in records.values() for run in runs}
    on = f"on {images.pop()}" if len(images) == 1 and images != {UNKNOWN} else ""
    seeds = max(len(runs) for runs in records.values())
    over = f"mean over {seeds} seeds" if seeds > 1 else "one seed"
    explained = [note for name, note in _COURSE_NOTE.items() if name in columns]
    figures = []
    for caption, note, panels, floor, smooth in (
        ("mIoU during training, percent", f"{on}; {over}".removeprefix("; "), score, None, False),
        ("Course of the training", "; ".join([over, *explained]), course, 0.0, False),
        ("Loss terms", over, losses, 0.0, True),
        (f"{each}, percent", f"{on}; {over}".removeprefix("; "), classes, 0.0, False),
    ):
        drawn = {title: _lines(records, name) for title, name in panels.items()}
        if drawn:
            svg = curves(drawn, methods=names, smooth=smooth, floor=floor)
            figures.append({"caption": caption, "note": note, "svg": svg})
    return figures


def moved_most(lines: Mapping[str, Mapping[str, Series]]) -> dict[str, str]:
    """Choose the classes to show: all, or the `_PANELS` whose IoU moved most.

    Args:
        lines: IoU over time by column and method.

    Returns:
        Column by class, in the order of the columns.
    """
    spread = {
        column: max((v for line in found.values() for _, v in line), default=0.0)
        - min((v for line in found.values() for _, v in line), default=0.0)
        for column, found in lines.items()
    }
    chosen = sorted(spread, key=lambda column: -spread[column])[:_PANELS]
    return {column.removeprefix(_IOU): column for column in lines if column in chosen}


def _lines(records: Mapping[str, Sequence[RunRecord]], column: str) -> dict[str, Series]:
    """One line for each method: the mean over its runs, at the steps that all have."""
    found = {}
    for name, runs in records.items():
        lines = [dict(run.series[column]) for run in runs if run.series.get(column)]
        if lines:
            steps = sorted(set(lines[0]).intersection(*lines[1:]))
            mean = [(s, float(np.mean([line[s] for line in lines]))) for s in steps]
            found[name] = _percent(mean) if column in _SHARES else mean
    return found


def _percent(line: Series) -> Series:
    return [(step, 100 * value) for step, value in line]
