"""A report on runs as one HTML file: scores, curves, classes, pictures.

Everything is inside the file (pictures as data URIs, no script), so it can be mailed and opened
anywhere; it follows the reader's light or dark setting and fits a phone. Its style is in `page`.
"""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from pipa.batch import IGNORE_INDEX
from pipa.classes import LabelSpace
from pipa.evaluation.page import page
from pipa.evaluation.plots import PALETTE, Series, Theme, class_bars, curves, picture
from pipa.evaluation.scores import Result, best_of, figure, gain
from pipa.files.paint import colourise
from pipa.files.writing import write_text

_LOSS = "loss/"
_MIOU = "miou"
_WIDEST = 640
"""Maximum number of columns of a picture in the gallery; wider ones are reduced."""


@dataclass
class RunRecord:
    """The report's data on one run."""

    label: str
    """Display name of the method, such as "PiPa"."""
    result: Result
    curves: Mapping[str, Series] = field(default_factory=dict)
    """Series by name: "loss/TERM" in its own unit, "miou" in percent; others are not shown."""


@dataclass
class GalleryRow:
    """One image of the gallery, its ground truth if known, and the predictions of runs."""

    image: UInt8[np.ndarray, "h w 3"]
    truth: Integer[np.ndarray, "h w"] | None
    predictions: Mapping[str, Integer[np.ndarray, "h w"]]
    """Class ids by the run's key in `runs`; 255 is black."""


def write_report(
    path: Path,
    title: str,
    runs: Mapping[str, RunRecord],
    gallery: Sequence[GalleryRow] = (),
    facts: Mapping[str, str] | None = None,
    *,
    labels: LabelSpace,
) -> None:
    """Write the report, whole or not at all; an older one of the same name is replaced.

    Args:
        path: The HTML file; its folder is made.
        title: Heading of the page.
        runs: The runs by key, the baseline first; gains are relative to it.
        gallery: Images to show with ground truth and predictions.
        facts: Facts about the runs: data, seed, time, machine, command.
        labels: Names and colours of the classes.

    Raises:
        PipaError: The file cannot be written.
    """
    sections = [
        _summary(title, list(runs.values())),
        _training(list(runs.values())),
        _classes(list(runs.values()), labels),
        _gallery(gallery, runs, labels),
        _facts(facts or {}),
    ]
    columns = max([1, *(1 + (row.truth is not None) + len(row.predictions) for row in gallery)])
    body = "\n".join(section for section in sections if section)
    text = page(title, body, columns=min(columns, 5), light=PALETTE["light"], dark=PALETTE["dark"])
    write_text(path, text)


def _summary(title: str, runs: Sequence[RunRecord]) -> str:
    cards = []
    for index, run in enumerate(runs):
        change = gain([runs[0].result.miou, run.result.miou])
        against = f"<b>{_signed(change)}</b> against {escape(runs[0].label)}"
        accuracy = run.result.accuracy
        share = "" if math.isnan(accuracy) else f"{accuracy:.1f} % of the pixels right"
        cards.append(
            f'<div class="card" style="--tone: var(--tone{index % len(PALETTE["light"])})">'
            f"<h3>{escape(run.label)}</h3>"
            f'<div class="big">{figure(run.result.miou)} <small>mIoU</small></div>'
            f"<div>{against if index else 'the baseline'}</div>"
            f'<div class="note">{share}</div></div>'
        )
    return f'<h1>{escape(title)}</h1>\n{_lead(runs)}\n<div class="cards">{"".join(cards)}</div>'


def _lead(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return ""
    last = runs[-1]
    claim = f"{escape(last.label)} reaches {figure(last.result.miou)} mIoU"
    parts = []
    for other in runs[:-1]:
        change = last.result.miou - other.result.miou
        side = "above" if change >= 0 else "below"
        parts.append(f"{abs(change):.1f} {side} {escape(other.label)}")
    against = f": {', '.join(parts)}" if parts else ""
    return f'<p class="lead"><b>{claim}</b> on held-out images{against}.</p>'


def _training(runs: Sequence[RunRecord]) -> str:
    names = [run.label for run in runs]
    losses: dict[str, dict[str, Series]] = {}
    for run in runs:
        for name, series in run.curves.items():
            if name.startswith(_LOSS) and series:
                losses.setdefault(name.removeprefix(_LOSS), {})[run.label] = series
    scores = {run.label: run.curves[_MIOU] for run in runs if run.curves.get(_MIOU)}
    height = max(3.9, 0.5 + 2.1 * math.ceil(len(losses) / 2))
    plots = []
    if scores:
        draw = _themed(
            lambda theme: curves({"": scores}, methods=names, height=min(height, 5), theme=theme)
        )
        plots.append(_plot("mIoU on validation images, percent", draw))
    if losses:
        draw = _themed(
            lambda theme: curves(
                losses, methods=names, smooth=True, floor=0.0, height=height, theme=theme
            )
        )
        plots.append(_plot("Loss terms", draw))
    if not plots:
        return ""
    return f'<h2>Training</h2>\n<div class="pair">{"".join(plots)}</div>'


def _classes(runs: Sequence[RunRecord], labels: LabelSpace) -> str:
    if not runs:
        return ""
    values = {run.label: run.result.iou for run in runs}
    bars = _plot("IoU, percent", _themed(lambda theme: class_bars(values, theme=theme)))
    names = dict.fromkeys(name for scores in values.values() for name in scores)
    colours = dict(zip(labels.names, labels.colours, strict=True))
    rows = "".join(
        f"<tr><td>{_chip(colours.get(name))}{escape(name)}</td>"
        f"{_cells([scores.get(name) for scores in values.values()])}</tr>"
        for name in names
    )
    means = _cells([run.result.miou for run in runs])
    heads = [*values, *(["gain"] if len(runs) > 1 else [])]
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return (
        "<h2>Classes</h2>\n"
        f'<div class="pair">{bars}<div class="scroll"><table><thead><tr><th>class</th>{head}</tr>'
        f"</thead><tbody>{rows}</tbody><tfoot><tr><td>mIoU</td>{means}</tr></tfoot></table></div>"
        "</div>"
    )


def _cells(values: Sequence[float | None]) -> str:
    best = best_of(values)
    cells = [
        f'<td class="{"best" if best is not None and value == best else ""}">{figure(value)}</td>'
        for value in values
    ]
    if len(values) > 1:
        cells.append(f"<td>{_signed(gain(values))}</td>")
    return "".join(cells)


def _gallery(
    gallery: Sequence[GalleryRow], runs: Mapping[str, RunRecord], labels: LabelSpace
) -> str:
    if not gallery:
        return ""
    seen: set[int] = set()
    rows = []
    for row in gallery:
        shown = [_figure_of("image", "", picture(_reduced(row.image), form="jpeg"), "jpeg")]
        maps = [] if row.truth is None else [("truth", "", row.truth)]
        for key, ids in row.predictions.items():
            name = runs[key].label if key in runs else key
            maps.append((name, _share_right(ids, row.truth), ids))
        for name, note, ids in maps:
            seen.update(np.unique(ids).tolist())
            step = _step(ids.shape[1])
            paint = colourise(ids[::step, ::step], labels.colours)
            shown.append(_figure_of(name, note, picture(paint), "png"))
        rows.append(f'<div class="row">{"".join(shown)}</div>')
    chips = "".join(
        f"<li>{_chip(colour)}{escape(name)}</li>"
        for place, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True))
        if place in seen
    )
    black = f"<li>{_chip((0, 0, 0))}no class</li>" if seen - set(range(len(labels.names))) else ""
    return f'<h2>Pictures</h2>\n<ul class="legend">{chips}{black}</ul>\n{"".join(rows)}'


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return f"<h2>How this was made</h2>\n<dl>{rows}</dl>"


def _figure_of(name: str, note: str, data: bytes, form: str) -> str:
    kind = "ids" if form == "png" else "photo"
    return (
        f"<figure><figcaption><b>{escape(name)}</b><span>{note}</span></figcaption>"
        f'<img class="{kind}" alt="{escape(name)}" src="{_uri(data, form)}"></figure>'
    )


def _themed(draw: Callable[[Theme], bytes]) -> tuple[bytes, bytes]:
    return draw("light"), draw("dark")


def _plot(caption: str, themed: tuple[bytes, bytes]) -> str:
    light, dark = (_uri(data, "svg+xml") for data in themed)
    return (
        f'<figure class="plot"><figcaption>{escape(caption)}</figcaption><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{escape(caption)}" src="{light}"></picture></figure>'
    )


def _uri(data: bytes, form: str) -> str:
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


def _step(width: int) -> int:
    return max(1, math.ceil(width / _WIDEST))


def _reduced(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Average over squares of pixels, so that large photographs stay small in the page."""
    step = _step(image.shape[1])
    height, width = image.shape[0] // step, image.shape[1] // step
    cut = image[: height * step, : width * step].reshape(height, step, width, step, 3)
    reduced: np.ndarray = np.rint(cut.mean(axis=(1, 3))).astype(np.uint8)
    return reduced


def _share_right(ids: Integer[np.ndarray, "h w"], truth: Integer[np.ndarray, "h w"] | None) -> str:
    if truth is None or not (labelled := truth != IGNORE_INDEX).any():
        return ""
    return f"{100 * (ids == truth)[labelled].mean():.0f} % right"


def _chip(colour: tuple[int, int, int] | None) -> str:
    if colour is None:
        return ""
    red, green, blue = colour
    return f'<i class="chip" style="background: rgb({red},{green},{blue})"></i>'


def _signed(change: float | None) -> str:
    if change is None or math.isnan(change):
        return "-"
    if abs(change) < 0.05:
        return "0.0"
    return f'<span class="{"up" if change > 0 else "down"}">{change:+.1f}</span>'
