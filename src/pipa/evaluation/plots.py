"""Figures of training and of scores, as bytes of an SVG or PNG file.

They use matplotlib's objects, without a window or global state. The colours are Okabe and Ito's,
which colour-blind people can distinguish; a method has the same colour in every figure. Figures are
as wide as a phone, so that their text is readable there; `for_dark` turns their colours.
`diagrams` has the figures of predictions and features.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipa.evaluation.significance import student_interval

Series = Sequence[tuple[int | float, int | float]]
"""(step, value) in order of step."""

PALETTE: dict[str, tuple[str, ...]] = {
    "light": ("#767b84", "#cf7c00", "#0072b2", "#009e73", "#cc5f97", "#d55e00", "#3f97cb"),
    "dark": ("#a3a9b3", "#f0b03c", "#4aa8e8", "#2fc79a", "#e08fbb", "#f0813f", "#8fd0f5"),
}
"""Colours of the first method (the baseline: grey), the second, ..., for light and dark pages."""
_MARKS = ("o", "s", "^", "D", "v", "P", "X")
INK, FAINT = "#20242b", "#d9dce1"
_DARK = {INK: "#e6e8ec", FAINT: "#3a3f48"}
WIDTH = 3.8
"""Width of a figure, in inches."""
STYLE: Any = {
    "font.size": 10,
    "svg.hashsalt": "pipa",  # without it the bytes of a figure differ each time
    "text.parse_math": False,  # a name with two dollars is not a formula
    "svg.fonttype": "path",  # the reader's fonts may have other widths
}


def for_dark(svg: bytes) -> bytes:
    """Return a figure in the colours of a dark page."""
    for light, dark in (*zip(PALETTE["light"], PALETTE["dark"], strict=True), *_DARK.items()):
        svg = svg.replace(light.encode(), dark.encode())
    return svg


def curves(
    panels: Mapping[str, Mapping[str, Series]],
    *,
    methods: Sequence[str] | None = None,
    smooth: bool = False,
    floor: float | None = None,
    ceiling: float | None = None,
) -> bytes:
    """Plot values against training steps: one panel per quantity, one line per method.

    Args:
        panels: Title of a panel (such as a loss term) -> method -> its series.
        methods: All methods in their order, which decides colours; default: as they appear.
        smooth: Draw a running mean over the raw values, for noisy losses.
        floor: Start of the vertical axes; default: below the lowest value.
        ceiling: With a floor, their end; default: above the highest value.
    """
    if methods is None:
        methods = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    columns = min(2, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    height = 2.6 if rows == 1 else 0.7 + 1.5 * rows
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for axes, (title, panel) in zip(grid, panels.items(), strict=False):
            dress(axes, shortened(title, 18))
            _lines(axes, panel, methods, smooth)
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
            if floor is not None:
                top = axes.get_ylim()[1] if ceiling is None else ceiling
                axes.set_ylim(floor, top + 0.05 * (top - floor) if top > floor else floor + 1)
        for axes in grid[-columns:]:
            axes.set_xlabel("step")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        drawn = {name for panel in panels.values() for name in panel}
        if len(drawn) > 1:
            legend(figure, [name if name in drawn else "" for name in methods])
        return encode(figure)


def class_bars(
    values: Mapping[str, Mapping[str, float | None]],
    *,
    methods: Sequence[str] | None = None,
) -> bytes:
    """Plot each class's IoU in percent as horizontal bars, one below the other for the methods.

    Args:
        values: Method -> class -> percent, or None if the class does not occur. Classes without any
            value are left out.
        methods: All methods in their order, which decides colours; default: as they appear.
    """
    named = dict.fromkeys(name for scores in values.values() for name in scores)
    classes = [name for name in named if any(s.get(name) is not None for s in values.values())]
    methods = list(values) if methods is None else methods
    thick = 0.8 / max(1, len(values))
    inches = 1.2 + len(classes) * (0.12 + 0.12 * len(values))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, inches), layout="constrained")
        axes = figure.subplots()
        dress(axes)
        for place, (method, scores) in enumerate(values.items()):
            rows = np.arange(len(classes)) - 0.4 + (place + 0.5) * thick
            lengths = [scores.get(name) or 0.0 for name in classes]
            colour = tone(list(methods).index(method))
            axes.barh(rows, lengths, thick * 0.9, label=method, color=colour)
        axes.set_yticks(range(len(classes)), [shortened(name) for name in classes])
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("IoU, percent")
        if len(values) > 1:
            legend(figure, [name if name in values else "" for name in methods], bars=True)
        return encode(figure)


def strips(
    values: Mapping[str, Sequence[float]],
    changes: Mapping[str, Mapping[str, Sequence[float]]],
) -> bytes:
    """Plot each row's mIoU, and its differences: a dot per seed and a bar at their mean.

    A difference has a line as well: Student's 95 % interval. It ends at the panel's edge if it
    reaches further than three times the dots, as it does with two seeds.

    Args:
        values: Row -> percent, one value per seed.
        changes: Reference -> row -> points of difference to it, one value per seed of both; a panel
            for each reference.
    """
    panels = {"mIoU, percent": values} | {f"minus {name}": rows for name, rows in changes.items()}
    rows = list(values)
    with mpl.rc_context(STYLE):
        size = (2.2 + 3.0 * len(panels), 1.1 + 0.34 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True).ravel()
        for place, (axes, (title, panel)) in enumerate(zip(grid, panels.items(), strict=True)):
            dress(axes, title)
            axes.grid(visible=False, axis="y")
            if place:
                axes.axvline(0, color=tone(0), linewidth=1)
            for name, dots in panel.items():
                if not dots:
                    continue
                height, colour = rows.index(name), tone(2)
                axes.plot(dots, [height] * len(dots), "o", color=colour, alpha=0.5, markersize=5)
                centre = sum(dots) / len(dots)
                axes.plot([centre] * 2, [height - 0.3, height + 0.3], color=colour, linewidth=2.5)
                if place and (interval := student_interval(dots)) is not None:
                    axes.plot(interval, [height] * 2, color=colour, linewidth=1.2)
        grid[0].set_yticks(range(len(rows)), rows)
        grid[0].set_ylim(len(rows) - 0.5, -0.5)
        reach = _reach([dots for panel in changes.values() for dots in panel.values()])
        for axes in grid:
            axes.tick_params(axis="y", length=0)
            axes.xaxis.set_major_locator(MaxNLocator(5))
        for axes in grid[1:]:
            axes.set_xlim(-reach, reach)  # one scale for all differences
            axes.set_xlabel("line: 95 % interval")
        grid[0].set_xlabel("dot: a seed; bar: their mean")
        return encode(figure)


def picture(image: UInt8[np.ndarray, "h w 3"], *, form: Literal["png", "jpeg"] = "png") -> bytes:
    """Encode an RGB image as a file: PNG for classes in colour, JPEG for photographs."""
    buffer = io.BytesIO()
    extra = {"quality": 88} if form == "jpeg" else {"optimize": True}
    imsave(buffer, image, format=form, pil_kwargs=extra)
    return buffer.getvalue()


def running_mean(values: Sequence[int | float], window: int) -> list[float]:
    """Average each value with those before it, at most `window` together; NaNs are left out."""
    array = np.asarray(values, float)
    seen = np.isfinite(array)
    total = np.concatenate([[0.0], np.cumsum(np.where(seen, array, 0.0))])
    count = np.concatenate([[0], np.cumsum(seen)])
    last = np.arange(1, len(array) + 1)
    first = np.maximum(last - window, 0)
    number = count[last] - count[first]
    mean = (total[last] - total[first]) / np.maximum(number, 1)
    return [float(m) if n else math.nan for m, n in zip(mean, number, strict=True)]


def _reach(samples: Sequence[Sequence[float]]) -> float:
    """Return where an axis of differences ends: beyond all dots, if possible all intervals."""
    farthest = max([1.0, *(abs(dot) for dots in samples for dot in dots)])
    ends = [abs(end) for dots in samples for end in student_interval(dots) or ()]
    return 1.1 * max(farthest, min(3 * farthest, max(ends, default=0.0)))


def _lines(axes: Axes, panel: Mapping[str, Series], methods: Sequence[str], smooth: bool) -> None:
    for method, series in panel.items():
        place = list(methods).index(method)
        steps, values = [s for s, _ in series], [v for _, v in series]
        if smooth and len(values) >= 20:
            axes.plot(steps, values, color=tone(place), alpha=0.18, linewidth=0.8)
            values = running_mean(values, max(5, len(values) // 25))
        every = 1 if len(values) <= 25 else len(values) // 6
        axes.plot(
            steps,
            values,
            color=tone(place),
            linewidth=1.6,
            marker=_MARKS[place % len(_MARKS)],
            markersize=3.5,
            markevery=(every // 2, every),
        )


def tone(place: int) -> str:
    """The colour of the method at a place in the order of all."""
    return PALETTE["light"][place % len(PALETTE["light"])]


def shortened(name: str, most: int = 24) -> str:
    """A name that leaves room for its figure."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def dress(axes: Axes, title: str = "") -> None:
    """Give axes the look of all figures."""
    axes.set_facecolor("none")
    axes.set_title(title, color=INK, loc="left", size=10, pad=6 if title else 0)
    axes.tick_params(colors=INK, labelcolor=INK, color=FAINT, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(FAINT)


def legend(figure: Figure, methods: Sequence[str], *, bars: bool = False) -> None:
    """Name the methods above a figure, in as many columns as there is room for; "" is left out."""
    names = [shortened(method) for method in methods]
    keys: list[Line2D | Patch] = []
    for place, name in enumerate(names):
        mark = _MARKS[place % len(_MARKS)]
        if not name:
            continue
        if bars:
            keys.append(Patch(color=tone(place), label=name))
        else:
            keys.append(Line2D([], [], color=tone(place), marker=mark, linewidth=1.8, label=name))
    room = int(8.0 * figure.get_figwidth() / max(1.0, 4.0 + max(map(len, names), default=0)))
    figure.legend(
        handles=keys,
        loc="outside upper left",
        ncols=min(4, max(1, min(room, len(keys)))),
        frameon=False,
        labelcolor=INK,
    )


def encode(figure: Figure) -> bytes:
    """Return a figure as the bytes of an SVG file, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, dpi=160, metadata={"Date": None})
    return buffer.getvalue()
