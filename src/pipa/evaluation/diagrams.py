"""Figures of predictions and features: confusion, confidence, features in two dimensions.

They are drawn like those of `plots`.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipa.batch import IGNORE_INDEX
from pipa.classes import LabelSpace
from pipa.evaluation.plots import (
    FAINT,
    INK,
    STYLE,
    WIDTH,
    dress,
    encode,
    legend,
    shortened,
    tone,
)

_NUMBERED = 20
"""Maximum number of classes whose cells have a figure."""


def confusion_map(counts: Int[np.ndarray, "k k"], names: Sequence[str]) -> bytes:
    """Plot a confusion matrix, each row as shares of the pixels with that label, in percent.

    Args:
        counts: Pixels by label (rows) and predicted class (columns). Classes that occur in
            neither are left out.
        names: Names of the classes.
    """
    seen = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1)).tolist()
    shown = [shortened(names[i], 16) for i in seen]
    counts = counts[np.ix_(seen, seen)]
    total = counts.sum(axis=1, keepdims=True)
    shares = 100 * counts / np.maximum(total, 1)
    side = max(2.2, 0.34 * len(seen))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(side + 1.6, side + 1.4), layout="constrained")
        axes = figure.subplots()
        dress(axes)
        axes.grid(visible=False)
        # The alpha of one colour works on a light and on a dark page.
        axes.imshow(np.ones_like(shares), alpha=0.85 * shares / 100, cmap=_one(tone(2)), vmin=0)
        for row, column in np.argwhere(shares >= 0.5) if len(seen) <= _NUMBERED else ():
            axes.text(
                column,
                row,
                f"{shares[row, column]:.0f}",
                ha="center",
                va="center",
                color=INK,
                size=8,
            )
        axes.set_xticks(range(len(seen)), shown, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(seen)), shown)
        axes.set_xlabel("predicted")
        axes.set_ylabel("label")
        for spine in axes.spines.values():
            spine.set_visible(True)
        return encode(figure)


def _one(colour: str) -> mpl.colors.ListedColormap:
    return mpl.colors.ListedColormap([colour])


def reliability_diagram(
    bins: Mapping[str, Float[np.ndarray, "bins 3"]],
    *,
    methods: Sequence[str] | None = None,
) -> bytes:
    """Plot how often pixels of a confidence are right, and how many there are of each.

    Args:
        bins: Method -> pixels, right pixels and summed confidence, in bins of equal width from
            confidence 0 to 1. Where no pixel is right the labels are not known: only the
            numbers are drawn.
        methods: All methods in their order, which decides colours; default: as they appear.
    """
    methods = list(bins) if methods is None else list(methods)
    known = any(counts[:, 1].any() for counts in bins.values())
    ratios = [2, 1] if known else [1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.8 if known else 2.4), layout="constrained")
        grid = figure.subplots(
            len(ratios), 1, squeeze=False, sharex=True, height_ratios=ratios
        ).ravel()
        if known:
            dress(grid[0])
            grid[0].plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=":")
            grid[0].set_ylabel("right, percent")
        dress(grid[-1])
        for name, counts in bins.items():
            place = methods.index(name)
            edges = np.linspace(0, 100, len(counts) + 1)
            if known:
                filled = counts[counts[:, 0] > 0]
                right, sure = (100 * filled[:, column] / filled[:, 0] for column in (1, 2))
                mark = "os^D"[place % 4]
                grid[0].plot(sure, right, color=tone(place), marker=mark, markersize=3.5)
            share = 100 * counts[:, 0] / max(1.0, counts[:, 0].sum())
            grid[-1].stairs(share, edges, color=tone(place), linewidth=1.6)
        grid[-1].set_ylabel("pixels, %")
        grid[-1].set_xlabel("confidence, percent")
        grid[-1].set_xlim(0, 100)
        if len(bins) > 1:
            legend(figure, [name if name in bins else "" for name in methods])
        return encode(figure)


def feature_scatter(
    source: Float[np.ndarray, "n 2"],
    target: Float[np.ndarray, "m 2"],
    source_class: Int[np.ndarray, " n"],
    target_class: Int[np.ndarray, " m"],
    labels: LabelSpace,
) -> bytes:
    """Plot points of source (dots) and target (crosses) in the colours of their classes.

    Args:
        source: Features of the source in two dimensions.
        target: Features of the target.
        source_class: Class of each point; points with 255 are grey.
        target_class: The same for the target.
        labels: Colours of the classes.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        dress(axes)
        _points(axes, source, source_class, labels, "o")
        _points(axes, target, target_class, labels, "X")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
        keys = [
            Line2D([], [], color=INK, marker=mark, linestyle="", label=name, markersize=4.5)
            for mark, name in (("o", "source"), ("X", "target"))
        ]
        figure.legend(
            handles=keys, loc="outside upper left", ncols=2, frameon=False, labelcolor=INK
        )
        return encode(figure)


def _points(
    axes: Axes,
    points: Float[np.ndarray, "n 2"],
    classes: Int[np.ndarray, " n"],
    labels: LabelSpace,
    mark: str,
) -> None:
    grey = tuple(int(FAINT[i : i + 2], 16) for i in (1, 3, 5))
    table = np.array([*labels.colours, grey]) / 255
    colours = table[np.where(classes == IGNORE_INDEX, len(labels.colours), classes)]
    # The edge shows black points on a dark page, and white ones on a light page.
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=13 if mark == "o" else 22,
        c=colours,
        marker=mark,
        edgecolors=INK,
        linewidths=0.3,
        alpha=0.8,
    )
