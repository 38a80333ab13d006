"""The parts of a report that show figures and pictures, as content for `page`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipa.batch import IGNORE_INDEX
from pipa.classes import LabelSpace
from pipa.evaluation.compare import Comparison, Difference
from pipa.evaluation.diagrams import confusion_map, feature_scatter, reliability_diagram
from pipa.evaluation.examine import Examination, Seen
from pipa.evaluation.page import label_map, photo
from pipa.evaluation.plots import class_bars
from pipa.evaluation.record import RunRecord
from pipa.evaluation.runs import Row
from pipa.evaluation.scores import best_of, figure
from pipa.evaluation.tables import class_means, said, signed

Records = Mapping[str, Sequence[RunRecord]]
_CRITERIA = {
    "score": "score",
    "agreement": "agreement",
    "js": "JS",
    "snd": "SND",
    "information": "information",
    "confidence": "confidence",
}


def class_table(
    comparison: Comparison | None, names: Sequence[str], seen: Examination | None
) -> dict[str, Any] | None:
    """IoU of each class, and how the last method differs from the reference."""
    if comparison is None:
        return None
    rows = comparison.rows
    means = {row.name: class_means(row) for row in rows}
    by_name = {name: means.get(name, {}) for name in names if name in means}
    classes = dict.fromkeys(c for row in rows for r in row.results.values() for c in r.iou)
    colours = dict(zip(seen.labels.names, seen.labels.colours, strict=True)) if seen else {}
    reference = comparison.named(comparison.against[0])
    differs = rows[-1].name != reference.name
    changes = {name: class_difference(rows[-1], reference, name) for name in classes}
    alone = all(len(change.by_seed) < 2 for change in changes.values())
    lines = [
        {
            "name": name,
            "colour": colours.get(name),
            "cells": _cells([means[row.name].get(name) for row in rows])
            + ([_signed(changes[name], alone=alone)] if differs else []),
        }
        for name in classes
    ]
    note = f"on {rows[0].scored_on}"
    bars = class_bars(by_name, methods=names)
    head = [row.name for row in rows]
    if differs:
        head.append(f"{rows[-1].name} minus {reference.name}" + " (one seed)" * alone)
    return {
        "figure": {"caption": "IoU, percent", "note": note, "svg": bars},
        "head": head,
        "lines": lines,
    }


def class_difference(row: Row, reference: Row, name: str) -> Difference:
    """IoU of one class minus that of the reference, seed by seed."""
    found = {}
    for seed, result in row.results.items():
        other = reference.results.get(seed)
        pair = result.iou.get(name), None if other is None else other.iou.get(name)
        if pair[0] is not None and pair[1] is not None:
            found[seed] = pair[0] - pair[1]
    return Difference(row.name, reference.name, found)


def _cells(values: Sequence[float | None]) -> list[dict[str, str]]:
    best = best_of(values)
    return [
        {"text": figure(v), "kind": "best" if best is not None and v == best else ""}
        for v in values
    ]


def _signed(change: Difference, *, alone: bool) -> dict[str, str]:
    """Write a difference; if all of the column have one seed, its head says so."""
    if not change.by_seed:
        return {"text": "-", "kind": ""}
    kind = "" if abs(change.mean) < 0.05 else "up" if change.mean > 0 else "down"
    return {"text": signed(change.mean) if alone else said(change), "kind": kind}


def confusion_figures(records: Records) -> list[dict[str, Any]]:
    """A confusion matrix for each method, summed over its runs."""
    figures = []
    for name, runs in records.items():
        found = [one for run in runs if (one := run.confusion()) is not None]
        found = [one for one in found if one[0] == found[0][0] and np.any(one[1])]
        if found:
            counts = np.sum([one[1] for one in found], axis=0)
            seen = int((counts.sum(axis=0) + counts.sum(axis=1) > 0).sum())
            seeds = f"{len(found)} seeds together" if len(found) > 1 else "one seed"
            note = f"of the pixels of a class, on {runs[0].scored_on}; {seeds}"
            kind = "wide span" if seen > 8 else ""
            svg = confusion_map(counts, found[0][0])
            caption = f"Confusion, percent: {name}"
            figures.append({"caption": caption, "note": note, "svg": svg, "kind": kind})
    return figures


def gallery(seen: Examination | None) -> dict[str, Any] | None:
    """Images, with a slider from the first network's prediction to the last one's."""
    if seen is None or not seen.seen:
        return None
    known = {int(i) for one in seen.seen for i in _ids(one)}
    legend = [
        {"name": name, "colour": colour}
        for place, (name, colour) in enumerate(
            zip(seen.labels.names, seen.labels.colours, strict=True)
        )
        if place in known
    ]
    if IGNORE_INDEX in known:
        legend.append({"name": "no class", "colour": (0, 0, 0)})
    models = list(seen.seen[0].predictions)
    order = "; those that changed most come first" if len(models) > 1 else ""
    left = models[0] if len(models) > 1 else "the image"
    return {
        "note": f"{len(seen.seen)} images spread over {seen.images}{order}. One run of each "
        f"method. Drag the line: {left} on its left, {models[-1]} on its right.",
        "legend": legend,
        "colours": seen.labels.colours,
        "seen": [_shown(one, seen.labels) for one in seen.seen],
    }


def _ids(one: Seen) -> list[int]:
    maps = [*one.predictions.values(), *([] if one.truth is None else [one.truth])]
    return [int(i) for ids in maps for i in np.unique(ids)]


def _shown(one: Seen, labels: LabelSpace) -> dict[str, Any]:
    models = list(one.predictions)
    sides = [
        {"name": name + _right(one.right(name)), "uri": label_map(ids, labels.colours)}
        for name, ids in one.predictions.items()
    ]
    if len(models) == 1:
        sides.insert(0, {"name": "image", "uri": photo(one.image)})
    return {
        "name": one.name,
        "note": f"{100 * one.changed:.0f} % of the pixels changed" if len(models) > 1 else "",
        "image": one.image,
        "truth": one.truth,
        "first": sides[0],
        "last": sides[-1],
    }


def _right(share: float | None) -> str:
    return "" if share is None else f": {100 * share:.0f} % right"


def confidence(seen: Examination | None, names: Sequence[str]) -> dict[str, Any] | None:
    """How sure the networks are, and how often they are right where they are that sure."""
    if seen is None or not seen.bins:
        return None
    note = f"Over the pixels of {len(seen.seen)} images of {seen.images}, one run of each method. "
    if seen.labelled:
        errors = "; ".join(
            f"{name} {100 * calibration_error(bins):.1f}" for name, bins in seen.bins.items()
        )
        note += (
            "On the dotted line a network is right as often as it says. Expected calibration "
            f"error, in points: {errors}."
        )
    else:
        note += "Without labels it is not known how often they are right."
    figures = {"caption": "Reliability" if seen.labelled else "Confidence", "note": ""}
    svg = reliability_diagram(seen.bins, methods=names)
    return {"note": note, "figure": figures | {"svg": svg}}


def calibration_error(bins: np.ndarray) -> float:
    """Mean difference of confidence and accuracy over bins (ECE: Guo et al., ICML 2017)."""
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / max(1.0, bins[:, 0].sum()))


def features(seen: Examination | None) -> dict[str, Any] | None:
    """Features of source and target in two dimensions, for each network."""
    if seen is None or not seen.features:
        return None
    figures = []
    for name, found in seen.features.items():
        if not len(found.source) or not len(found.target):
            return None
        svg = feature_scatter(
            found.source, found.target, found.source_class, found.target_class, seen.labels
        )
        note = (
            f"{100 * found.apart:.0f} % have their nearest neighbour in their own domain "
            f"({100 * found.expected:.0f} % if the domains were mixed)"
        )
        figures.append({"caption": name, "note": note, "svg": svg})
    whose = "the truth" if seen.labelled else f"the predictions of {list(seen.features)[-1]}"
    return {
        "note": "What the encoder makes of pixels of source and target, on the two principal axes "
        f"of each network. Colours are classes: of the target, those of {whose}. One run of each "
        "method. Adaptation should bring dots and crosses of one colour together.",
        "figures": figures,
    }


def judgement(records: Records) -> dict[str, Any] | None:
    """The figures of all judgements without labels."""
    lines = []
    for name, runs in records.items():
        for run in runs:
            who = name if len(records) > 1 else ""
            who += f" seed {run.seed}" if len(runs) > 1 else ""
            for model, found in run.judgement.get("figures", {}).get("models", {}).items():
                values = [f"{found[key]:.3f}" for key in _CRITERIA]
                lines.append([" ".join([*who.split(), model]), *values])
    if not lines:
        return None
    return {
        "note": "More is better, except for JS. The score decides: agreement with itself on "
        "perturbed images, times the closeness of the class shares to the source's.",
        "cells": [["model", *_CRITERIA.values()], *lines],
    }
