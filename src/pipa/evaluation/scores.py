"""Scores of predictions: a confusion matrix, and all figures that follow from it.

The mean leaves out classes that occur neither in a label nor in a prediction, like the authors'
evaluation (mmseg/core/evaluation/metrics.py). `plots` has figures of scores.
"""

import csv
import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from pipa.batch import IGNORE_INDEX
from pipa.classes import CITYSCAPES, SYNTHIA13, SYNTHIA16, LabelSpace
from pipa.files.writing import write_text

_BAR = 20
"""Characters of a bar of 100 %."""


@dataclass(frozen=True)
class Result:
    """Scores of one network on one data set, in percent; NaN if there was nothing to score."""

    miou: float
    """Mean of `iou` over the classes that occur in the labels or the predictions."""
    iou: dict[str, float | None]
    """Intersection over union of each class; None if it occurs in neither."""
    accuracy: float = math.nan
    """Share of the labelled pixels with the right class."""
    mean_accuracy: float = math.nan
    """Mean of `class_accuracy` over the classes that occur in the labels."""
    class_accuracy: dict[str, float | None] = field(default_factory=dict)
    """Share of each class's pixels with the right class; None if the labels do not have it."""
    confusion: tuple[tuple[int, ...], ...] = field(default=(), compare=False, repr=False)
    """Pixels by label (outer) and predicted class, over all classes; empty if not known."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with None for NaN."""
        return {
            "miou": _or_none(self.miou),
            "iou": dict(self.iou),
            "accuracy": _or_none(self.accuracy),
            "mean_accuracy": _or_none(self.mean_accuracy),
            "class_accuracy": dict(self.class_accuracy),
            **{name: _or_none(mean) for name, mean in synthia_means(self).items()},
        }

    def write(self, path: Path) -> None:
        """Write `as_dict` as a JSON file, whole or not at all.

        Raises:
            PipaError: The file cannot be written.
        """
        write_text(path, json.dumps(self.as_dict(), indent=2) + "\n")

    def write_confusion(self, path: Path) -> None:
        """Write the counts of pixels as CSV: a row for each label, a column for each prediction.

        Raises:
            PipaError: The file cannot be written.
        """
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["label", *self.iou])
        for name, counts in zip(self.iou, self.confusion, strict=True):
            table.writerow([name, *counts])
        write_text(path, text.getvalue())

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Result":
        """Read the result of `as_dict`; `miou` and `iou` suffice, unknown keys are ignored."""
        number = {
            name: math.nan if stored.get(name) is None else float(stored[name])
            for name in ("miou", "accuracy", "mean_accuracy")
        }
        iou, class_accuracy = dict(stored["iou"]), dict(stored.get("class_accuracy", {}))
        return cls(number["miou"], iou, number["accuracy"], number["mean_accuracy"], class_accuracy)


class Scores(nn.Module):
    """Counts of (label, predicted class) over a data set; they are summed over processes.

    Args:
        labels: The classes; ids are positions in `labels.names`.
    """

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.names = labels.names
        # One more column than classes: a prediction of no class (255) is a miss.
        self.confusion = MulticlassConfusionMatrix(
            len(labels.names) + 1, ignore_index=IGNORE_INDEX, validate_args=False
        )

    def update(
        self,
        prediction: Int[Tensor, "b h w"] | UInt8[Tensor, "b h w"],
        label: Int[Tensor, "b h w"] | UInt8[Tensor, "b h w"],
    ) -> None:
        """Count the pixels of images; those labelled 255 are left out.

        Args:
            prediction: Class ids; ids that are not a class are always wrong.
            label: Class ids, or 255.
        """
        if self.confusion.device != label.device:
            self.confusion.to(label.device)
        self.confusion.update(prediction.long().clamp(max=len(self.names)), label.long())

    def reset(self) -> None:
        """Reset all counts to 0."""
        self.confusion.reset()

    def result(self) -> Result:
        """Return the scores over all classes and processes."""
        return self.subset(range(len(self.names)))

    def subset(self, train_ids: Sequence[int]) -> Result:
        """Return the scores over a subset of the classes, such as SYNTHIA's 16 or 13.

        The IoU of a class is the same as over all classes: pixels predicted as a class outside the
        subset are misses, not ignored. Accuracy is over the pixels labelled with the subset.

        Args:
            train_ids: Positions of the classes in the label space.
        """
        keep = list(train_ids)
        with warnings.catch_warnings():
            # Without counts the result is NaN, which says enough; torchmetrics would also warn.
            warnings.filterwarnings("ignore", "The ``compute`` method of metric", UserWarning)
            counts = self.confusion.compute().cpu().double()[: len(self.names)]  # MPS has no double
        hit = counts.diagonal()[keep]
        labelled = counts.sum(dim=1)[keep]
        iou = hit / (labelled + counts.sum(dim=0)[keep] - hit)
        found = hit / labelled
        names = [self.names[i] for i in keep]
        return Result(
            miou=_percent_mean(iou),
            iou=_by_name(names, iou),
            accuracy=float(100 * hit.sum() / labelled.sum()),
            mean_accuracy=_percent_mean(found),
            class_accuracy=_by_name(names, found),
            confusion=tuple(map(tuple, counts[:, : len(self.names)].long().tolist())),
        )


def synthia_means(result: Result) -> dict[str, float]:
    """Return means over SYNTHIA's 16 and 13 classes, as in papers; empty for other label spaces.

    Args:
        result: Scores over the 19 classes of Cityscapes.
    """
    if tuple(result.iou) != CITYSCAPES.names:
        return {}
    means = {}
    for count, train_ids in ((16, SYNTHIA16), (13, SYNTHIA13)):
        values = [result.iou[CITYSCAPES.names[i]] for i in train_ids]
        known = [value for value in values if value is not None]
        means[f"miou{count}"] = sum(known) / len(known) if known else math.nan
    return means


def score_table(result: Result) -> Table:
    """Make a table for the terminal: each class's IoU as a bar and a figure, and the means."""
    table = Table()
    table.add_column("class")
    table.add_column("IoU", justify="right")
    table.add_column("", min_width=_BAR, no_wrap=True)
    table.add_column("accuracy", justify="right")
    for name, value in result.iou.items():
        accuracy = result.class_accuracy.get(name)
        table.add_row(Text(name), figure(value), Text(_bar(value), style="blue"), figure(accuracy))
    table.add_section()
    table.add_row("mean", Text(figure(result.miou), style="bold"), "", figure(result.mean_accuracy))
    table.add_row("all pixels", "", "", figure(result.accuracy))
    for name, mean in synthia_means(result).items():
        table.add_row(f"mean over SYNTHIA's {name[4:]}", figure(mean), "", "")
    return table


def comparison_table(results: Mapping[str, Result], title: str = "") -> Table:
    """Make a table for the terminal: methods side by side, and the gain of the last over the first.

    Args:
        results: Scores by method, the baseline first; the classes of all of them are shown.
        title: Title of the table.
    """
    table = Table(title=Text(title, "table.title") if title else None, title_justify="left")
    table.add_column("class")
    for method in results:
        table.add_column(Text(display_name(method)), justify="right")
    if len(results) > 1:
        table.add_column("gain", justify="right")
    classes = dict.fromkeys(name for result in results.values() for name in result.iou)
    for name in classes:
        table.add_row(Text(name), *_compared([result.iou.get(name) for result in results.values()]))
    table.add_section()
    means = [_or_none(result.miou) for result in results.values()]
    table.add_row(Text("mIoU", style="bold"), *_compared(means))
    return table


def display_name(method: str) -> str:
    """Return the display name of a method's key in results.json: `source_only` -> `source-only`."""
    return {"pipa": "PiPa"}.get(method, method.replace("_", "-"))


def gain(values: Sequence[float | None]) -> float | None:
    """Return the last value minus the first; None if one is missing, or there is only one."""
    if len(values) < 2 or values[0] is None or values[-1] is None:
        return None
    return values[-1] - values[0]


def best_of(values: Sequence[float | None]) -> float | None:
    """Return the maximum; None if there is only one value, or all are equal."""
    known = {value for value in values if value is not None and not math.isnan(value)}
    return max(known) if len(known) > 1 else None


def _compared(values: Sequence[float | None]) -> list[Text]:
    best = best_of(values)
    cells = [
        Text(figure(value), style="bold" if value is not None and value == best else "")
        for value in values
    ]
    if len(values) < 2:
        return cells
    change = gain(values)
    if change is None:
        return [*cells, Text("-", style="dim")]
    style = "" if abs(change) < 0.05 else "green" if change > 0 else "red"
    return [*cells, Text(f"{change:+.1f}" if style else "0.0", style=style)]


def figure(value: float | None) -> str:
    """Format a value with one decimal; None and NaN become a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def _bar(value: float | None) -> str:
    eighths = round((value or 0) / 100 * _BAR * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _by_name(names: Sequence[str], ratio: Tensor) -> dict[str, float | None]:
    percent = (100 * ratio).tolist()
    return {name: _or_none(value) for name, value in zip(names, percent, strict=True)}


def _percent_mean(ratio: Tensor) -> float:
    return float(100 * torch.nanmean(ratio))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
