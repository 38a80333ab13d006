"""Check a whole data set: every fault of every file, the classes, and a sheet of pictures."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int, UInt8
from rich.table import Table
from rich.text import Text

from pipa.classes import IGNORE_INDEX, LabelSpace
from pipa.data.data_sets import Role
from pipa.data.dataset import Sample, Segmentation, in_classes, open_labelled, run_table
from pipa.data.faults import listed, unread
from pipa.data.find import find_all
from pipa.data.labels import ClassTable, count_pixels
from pipa.data.layouts import Files
from pipa.data.rare_classes import RareClasses, absent, class_counts, class_probabilities
from pipa.data.tables import FILE
from pipa.errors import PipaError
from pipa.files.images import write_png
from pipa.files.paint import colourise
from pipa.files.threads import in_threads

CELL = 160
"""Height of a picture on the sheet, in pixels."""


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Args:
        table: Summary: the classes, their share of the pixels, in how many images they are.
        faults: `file: what is wrong`, or `N files: what is wrong`, for every kind of fault.
        count: How many files are faulty.
        images: How many images there are.
        sizes: Heights and widths that occur, and in how many images.
        labels: The classes; None if there are no labels.
        counts: Pixels of each class in each image.
        notes: What is no fault, but worth knowing.
    """

    table: Table
    faults: list[str]
    count: int
    images: int
    sizes: Counter[tuple[int, int]]
    labels: LabelSpace | None
    counts: Int[np.ndarray, "n k"]
    notes: tuple[str, ...] = ()


def check(
    spec: str,
    classes: str | None = None,
    sheet: Path | None = None,
    *,
    role: Role = "source",
    table: ClassTable | None = None,
) -> Report:
    """Read every file of a data set; check that it can be read, its pair, its size and its ids.

    Args:
        spec: `[FORMAT[/SPLIT]:]PATH`; without a folder of labels, images alone are checked.
        classes: The classes that the labels should hold; None: the data set's own.
        sheet: Write a sheet of pictures, images beside their coloured labels, to this PNG.
        role: What the data are for: decides the split; labels of a target are not looked for.
        table: The run's classes, where they are known; then `classes` is ignored.

    Raises:
        PipaError: The data set is not there, there is no class table, or the sheet lies in a folder
            of the data set's images or labels.
    """
    files = _find(spec, role)
    labelled = any(pair.label is not None for pair in files.pairs)
    run = None if not labelled else table or run_table(files, classes)
    labels = None if run is None else run.labels
    images = Segmentation(files, None) if run is None else in_classes(files, run)
    kinds = labels.num_classes if labels is not None else 0
    if sheet is not None:
        _refuse_among(files, sheet)
        write_png(sheet, picture_sheet(images, labels))
    faults = [*files.faults, *unread(files)]
    faults += [PipaError("is the label of no image", path) for path in sorted(files.spare)]
    counts, ignored = np.zeros((len(images), kinds), np.int64), 0
    sizes: Counter[tuple[int, int]] = Counter()

    def look(index: int) -> tuple[tuple[int, int], Int[np.ndarray, " k"]] | PipaError:
        try:
            sample = images.load(index)
        except PipaError as error:
            return error
        none = np.zeros(0, np.int64)
        found = none if sample.label is None else count_pixels(sample.label, kinds)
        return (sample.image.shape[0], sample.image.shape[1]), found

    for index, seen in enumerate(in_threads(look, len(images), "Reading every file")):
        if isinstance(seen, PipaError):
            faults.append(seen)
        else:
            (height, width), counts[index] = seen
            sizes[height, width] += 1
            ignored += height * width - int(counts[index].sum())
    summary = _summary(spec, len(images), sizes, len(faults), labels, counts)
    notes = files.notes
    if sizes and images.table is not None:
        notes += _odd_labels(spec, images.root, images.table, counts, ignored)
    return Report(summary, listed(faults), len(faults), len(images), sizes, labels, counts, notes)


def stats(spec: str, classes: str | None = None, temperature: float = 0.01) -> Table:
    """Tabulate the classes of a labelled data set: share of pixels, probability of being sampled.

    Args:
        spec: `[FORMAT[/SPLIT]:]PATH`.
        classes: The classes to count; None: the data set's own.
        temperature: T of rare class sampling.

    Raises:
        PipaError: A file is missing or faulty.
    """
    images, labels = open_labelled(spec, classes, role="source")
    counts = class_counts(images, labels.names)
    chances = class_probabilities(counts.pixels, temperature)
    needed = RareClasses(counts, temperature).thresholds()
    further = {"sampled": [f"{p:.1%}" for p in chances], "min. pixels": [str(n) for n in needed]}
    return _class_table(f"{spec}: {len(images)} images", labels, counts.pixels, further)


def picture_sheet(
    images: Segmentation, labels: LabelSpace | None, count: int = 12
) -> UInt8[np.ndarray, "h w 3"]:
    """Paint some images of a data set beside their labels in the classes' colours, and a legend.

    Images that cannot be read are left out.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))
    cells = []
    for index in chosen.tolist():
        try:
            cells.append(_cell(images.load(index), labels))
        except PipaError:
            continue
    columns = 2 if labels is not None else 4
    cells = cells or [np.full((CELL, CELL, 3), 255, np.uint8)]
    width = max(cell.shape[1] for cell in cells)
    padded = [_fill(cell, width) for cell in cells]
    padded += [np.full_like(padded[0], 255)] * (-len(padded) % columns)
    rows = [np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)]
    if labels is not None:
        rows.append(_legend(labels, rows[0].shape[1]))
    return np.vstack(rows)


def _refuse_among(files: Files, sheet: Path) -> None:
    """Refuse a sheet that would replace an image or a label, or be taken for one the next time."""
    data = [*files.spare, *(path for one in files.pairs for path in (one.image, one.label) if path)]
    if sheet.resolve().parent in {folder.resolve() for folder in {path.parent for path in data}}:
        problem = "lies among the images or labels of the data set"
        raise PipaError(problem, f"--sheet {sheet}", "Give a file in another folder.")


def _find(spec: str, role: Role) -> Files:
    """List the files with labels, or without if there is no folder of labels."""
    try:
        return find_all(spec, role, labelled=role != "target")
    except PipaError as error:
        if error.where is None or Path(error.where).exists():
            raise
        try:
            return find_all(spec, role, labelled=False)
        except PipaError as second:
            there = second.where is not None and Path(second.where).exists()
            raise (second if there else error) from None


def _odd_labels(
    spec: str, root: Path, table: ClassTable, counts: Int[np.ndarray, "n k"], ignored: int
) -> tuple[str, ...]:
    """Say which classes never occur, and that masks of 0 and 255 have lost their foreground."""
    names = table.labels.names
    missing = absent(counts, names)
    notes = [f"{spec}: never in its labels: {', '.join(missing)}."] if missing else []
    # Whatever is ignored can only be 255 where the table ignores nothing itself.
    ignores = IGNORE_INDEX in (*table.ids.values(), *table.colours.values())
    found = np.flatnonzero(counts.sum(axis=0)).tolist()
    if ignored and not ignores and found == [table.ids.get(0)]:
        other = missing[0] if len(missing) == 1 else "object"
        notes.append(
            f"{spec}: its labels hold 0 and 255 only, and 255 is no class. If it should be one, "
            f"write `0: {names[found[0]]}` and `255: {other}` in {root / FILE}."
        )
    return tuple(notes)


def _summary(
    spec: str,
    images: int,
    sizes: Counter[tuple[int, int]],
    faults: int,
    labels: LabelSpace | None,
    counts: Int[np.ndarray, "n k"],
) -> Table:
    shown = [f"{height}x{width}" for height, width in (min(sizes), max(sizes))] if sizes else ["-"]
    title = f"{spec}: {images} images of {' to '.join(dict.fromkeys(shown))}, {faults} faults"
    if labels is None:
        return Table(title=Text(f"{title}, no labels", "table.title"))
    return _class_table(title, labels, counts, {})


def _class_table(
    title: str,
    labels: LabelSpace,
    counts: Int[np.ndarray, "n k"],
    further: dict[str, list[str]],
) -> Table:
    """Write one row per class; `further` holds the cells of more columns."""
    table = Table(title=Text(title, "table.title"), min_width=min(len(title), 78))
    for heading in ("id", "class", "pixels", "images", *further):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    pixels = counts.sum(axis=0)
    for i, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True)):
        shown = Text.assemble(("■ ", f"rgb({colour[0]},{colour[1]},{colour[2]})"), name)
        share = f"{pixels[i] / max(1, pixels.sum()):.2%}"
        inside = str(np.count_nonzero(counts[:, i]))
        table.add_row(str(i), shown, share, inside, *(cells[i] for cells in further.values()))
    return table


def _cell(sample: Sample, labels: LabelSpace | None) -> UInt8[np.ndarray, "h w 3"]:
    """Paint an image, its label beside it, its name below."""
    height, width = sample.image.shape[:2]
    size = (max(1, round(width * CELL / height)), CELL)
    parts = [cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)]
    if labels is not None and sample.label is not None:
        painted = colourise(sample.label, labels.colours)
        parts.append(cv2.resize(painted, size, interpolation=cv2.INTER_NEAREST))
    strip = np.hstack(parts)
    below = np.full((18, strip.shape[1], 3), 255, np.uint8)
    _write(below, sample.path.name[-strip.shape[1] // 7 :], (2, 13))
    return np.vstack([strip, below])


def _legend(labels: LabelSpace, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Paint swatches and names, in as many lines as they need."""
    per_line = max(1, width // 150)
    lines = -(-labels.num_classes // per_line)
    legend = np.full((lines * 22 + 8, width, 3), 255, np.uint8)
    for i, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True)):
        x, y = (i % per_line) * 150 + 6, (i // per_line) * 22 + 6
        legend[y : y + 14, x : x + 20] = colour
        _write(legend, name[:16], (x + 26, y + 12))
    return legend


def _write(picture: UInt8[np.ndarray, "h w 3"], text: str, at: tuple[int, int]) -> None:
    text = text.encode("ascii", "replace").decode()  # OpenCV has no other letters, and no mercy
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA)


def _fill(cell: UInt8[np.ndarray, "h w 3"], width: int) -> UInt8[np.ndarray, "y x 3"]:
    return np.pad(cell, ((4, 4), (4, 4 + width - cell.shape[1]), (0, 0)), constant_values=255)
