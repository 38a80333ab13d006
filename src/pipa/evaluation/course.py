"""Figures of the course of a training, from the `metrics.csv` of its runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipa.evaluation.plots import Series, curves
from pipa.evaluation.record import RunRecord
from pipa.evaluation.runs import UNKNOWN, scored_on

_PANELS = 24
"""Maximum number of classes that have a panel."""
_TOGETHER = 6
"""Panels of a figure: three rows, so that figures stand side by side on a wide page."""
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
    course = {title: name for name, title in _COURSE.items() if name in columns}
    score = {"": "miou"} if "miou" in columns else {}
    images = {scored_on(run.options) for runs in records.values() for run in runs}
    on = f"on {images.pop()}" if len(images) == 1 and images != {UNKNOWN} else ""
    seeds = max(len(runs) for runs in records.values())
    over = f"mean over {seeds} seeds" if seeds > 1 else "one seed"
    scored = f"{on}; {over}".removeprefix("; ")
    explained = [note for name, note in _COURSE_NOTE.items() if name in columns]
    figures = []
    for caption, note, panels, floor, smooth in (
        ("mIoU during training, percent", scored, score, None, False),
        ("Course of the training", "; ".join([over, *explained]), course, 0.0, False),
        ("Loss terms", over, losses, 0.0, True),
    ):
        drawn = {title: _lines(records, name) for title, name in panels.items()}
        if drawn:
            svg = curves(drawn, methods=names, smooth=smooth, floor=floor)
            figures.append({"caption": caption, "note": note, "svg": svg})
    classes = {n.removeprefix(_IOU): _lines(records, n) for n in columns if n.startswith(_IOU)}
    return figures + class_figures(classes, names, scored)


def class_figures(
    classes: Mapping[str, Mapping[str, Series]], names: Sequence[str], note: str
) -> list[dict[str, Any]]:
    """Figures of the IoU of classes over time, all at one scale."""
    chosen = moved_most(classes)
    caption = "IoU of each class, percent"
    if len(chosen) < len(classes):
        caption = f"IoU of the {len(chosen)} classes that moved most, percent"
    values = [v for name in chosen for line in classes[name].values() for _, v in line]
    ceiling = min(100.0, max([10.0, *values]))
    groups = [chosen[i : i + _TOGETHER] for i in range(0, len(chosen), _TOGETHER)]
    figures = []
    for number, group in enumerate(groups, 1):
        panels = {name: classes[name] for name in group}
        svg = curves(panels, methods=names, floor=0.0, ceiling=ceiling)
        part = f"{number} of {len(groups)}; " if len(groups) > 1 else ""
        figures.append({"caption": caption, "note": part + note, "svg": svg})
    return figures


def moved_most(classes: Mapping[str, Mapping[str, Series]]) -> list[str]:
    """Choose the classes to show, in their order: all, or the `_PANELS` whose IoU moved most.

    Args:
        classes: IoU over time by class and method.
    """
    spread = {}
    for name, lines in classes.items():
        values = [value for line in lines.values() for _, value in line]
        spread[name] = max(values, default=0.0) - min(values, default=0.0)
    chosen = sorted(spread, key=lambda name: -spread[name])[:_PANELS]
    return [name for name in classes if name in chosen]


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
