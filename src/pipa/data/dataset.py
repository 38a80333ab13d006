"""From a specification to full images with their labels, in the classes of the run."""

from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from pipa.classes import LabelSpace
from pipa.data.data_sets import Role
from pipa.data.find import find
from pipa.data.labels import ClassTable
from pipa.data.layouts import Files, Pair
from pipa.data.tables import class_table, no_table
from pipa.errors import PipaError
from pipa.files.flow import read_flow
from pipa.files.images import image_size, read_image, read_label

SMALL = 2**30
"""Bytes up to which `cache: auto` keeps the decoded images of all data sets together."""
_LOOKED_AT = 8  # images of a data set that are read before training


class Sample(NamedTuple):
    """A full image and its label, which the images of a target do not have."""

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"] | None
    path: Path
    """The image's file, for errors."""


class Segmentation:
    """The images of a data set, decoded on demand, with labels in the run's classes.

    Args:
        files: Its files.
        table: What the numbers in its label files mean, in the run's classes; None: no labels.
        cache: Keep every decoded image in the memory of this process.
    """

    def __init__(self, files: Files, table: ClassTable | None, *, cache: bool = False) -> None:
        self.pairs: list[Pair] = files.pairs
        self.root, self.table, self.cache = files.root, table, cache
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def load(self, index: int) -> Sample:
        """Read one image and its label, where there is one.

        Raises:
            PipaError: A file is unreadable, their sizes differ, or an id is not in the table.
        """
        if index in self._kept:
            return self._kept[index]
        pair = self.pairs[index]
        image = read_image(pair.image)
        label = None if pair.label is None else self.label(index)
        if label is not None and label.shape != image.shape[:2]:
            raise PipaError(
                f"the image has {_size(image.shape)} pixels, its label {_size(label.shape)}",
                pair.label,
                "Write the label at the size of its image.",
            )
        sample = Sample(image, label, pair.image)
        if self.cache:
            self._kept[index] = sample
        return sample

    def neighbour(self, index: int, steps: int) -> int:
        """Return the image that lies some files after this one in its folder.

        Args:
            index: This image.
            steps: How many files after it, in the order of their names; negative: before it.
                Beyond the end of the folder its last (or first) image is returned.
        """
        row = self._folders[self.pairs[index].image.parent]
        return row[min(max(row.index(index) + steps, 0), len(row) - 1)]

    def comes_after(self, index: int, other: int) -> bool:
        """Return whether an image lies after another one in their folder."""
        row = self._folders[self.pairs[index].image.parent]
        return row.index(index) > row.index(other)

    def flow(self, index: int, *, forward: bool) -> Float[np.ndarray, "h w 2"]:
        """Read the optical flow to the frame after (or before) one: rows and columns, or nan.

        Raises:
            PipaError: The file is missing or faulty.
        """
        files = self.pairs[index].flow
        assert files is not None, "a video without flow is refused at the start"
        return read_flow(files.next if forward else files.previous)

    @cached_property
    def _folders(self) -> dict[Path, list[int]]:
        """The images of each folder, in the order of their names."""
        found: dict[Path, list[int]] = {}
        for index in sorted(range(len(self)), key=lambda i: self.pairs[i].image.name):
            found.setdefault(self.pairs[index].image.parent, []).append(index)
        return found

    def label(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Read the label of one image, as classes of the run.

        Raises:
            PipaError: The file is unreadable, or holds an id that is not in the table.
        """
        path = self.pairs[index].label
        assert path is not None, "a data set without labels is never asked for them"
        assert self.table is not None, "labels are read with a table"
        return self.table.encode(read_label(path), path)


def open_labelled(
    spec: str,
    classes: str | None = None,
    *,
    role: Role = "validation",
    default: str = "folder",
    skipped: list[PipaError] | None = None,
) -> tuple[Segmentation, LabelSpace]:
    """Open labelled images; return them, and the classes of their labels.

    Args:
        spec: `[FORMAT[/SPLIT]:]PATH`.
        classes: The run's classes; None: the data set's own.
        role: Decides the split if the specification does not.
        default: Format of a specification without one.
        skipped: The list that images without a label are added to; None: they are raised.

    Raises:
        PipaError: A file is not where it should be, or there is no class table.
    """
    files = find(spec, role, default, skipped=skipped)
    run = run_table(files, classes)
    return in_classes(files, run), run.labels


class Domains(NamedTuple):
    """The images that one training reads, with labels in its classes."""

    labels: LabelSpace
    source: Segmentation
    target: Segmentation | None
    validation: Segmentation | None


def open_domains(
    source: str,
    target: str | None,
    validation: str | None,
    *,
    format: str,
    classes: str | None,
    cache: bool | Literal["auto"],
    workers: int,
    skipped: list[PipaError] | None = None,
) -> Domains:
    """Open the data sets of a training.

    Args:
        source: `[FORMAT[/SPLIT]:]PATH` of the labelled source.
        target: The same of the target; None: there is none.
        validation: The same of labelled images of the target; None: there are none.
        format: Format of those that have none in their specification.
        classes: The run's classes; None: those of the source.
        cache: Whether to keep decoded images in memory; "auto": if they are `SMALL`.
        workers: Processes that load, each with a memory of its own.
        skipped: The list that images without a label are added to; None: they are raised.

    Raises:
        PipaError: A file is not where it should be, or there is no class table.
    """
    find_files = partial(find, default=format, skipped=skipped)
    source_files = find_files(source, "source")
    target_files = None if target is None else find_files(target, "target")
    scored_files = None if validation is None else find_files(validation, "validation")
    run = run_table(source_files, classes)
    files = [f for f in (source_files, target_files, scored_files) if f is not None]
    keep = is_small(files, workers) if cache == "auto" else cache
    return Domains(
        run.labels,
        in_classes(source_files, run, cache=keep),
        None if target_files is None else in_classes(target_files, run, cache=keep),
        None if scored_files is None else in_classes(scored_files, run, cache=keep),
    )


def run_table(source: Files, classes: str | None) -> ClassTable:
    """Return the classes of a run: those of the option, or else those of the source.

    Raises:
        PipaError: There are none; the error lists the ids that were found, and what to write.
    """
    if classes is not None:
        return class_table(classes)
    if source.table is not None:
        return source.table
    found: set[str] = set()
    for pair in source.pairs[:20]:
        assert pair.label is not None, "the source has labels"
        raw = read_label(pair.label)
        values = np.unique(raw.reshape(-1, *raw.shape[2:]), axis=0)[:50]
        found.update(str(value) for value in values.tolist())
    raise no_table(source.root, sorted(found, key=lambda text: (len(text), text)))


def in_classes(files: Files, run: ClassTable, *, cache: bool = False) -> Segmentation:
    """Open a data set, with its labels, if it has any, in the classes of the run.

    Raises:
        PipaError: The data set's own classes have nothing in common with the run's.
    """
    labelled = any(pair.label is not None for pair in files.pairs)
    own = files.table or run
    return Segmentation(files, own.mapped_to(run.labels) if labelled else None, cache=cache)


def is_small(data: Iterable[Files], workers: int) -> bool:
    """Return whether the decoded images fit into `SMALL` bytes, kept once by each worker."""
    total = 0
    for files in data:
        try:
            height, width = image_size(files.pairs[0].image)
        except PipaError:  # raised, or skipped, when the image is loaded
            return False
        total += len(files.pairs) * height * width * 4
    return total * max(1, workers) <= SMALL


def spread_indices(images: Segmentation) -> Iterable[int]:
    """Return a few indices, spread over the data set, to look at before a long training."""
    count = min(_LOOKED_AT, len(images))
    return sorted({round(i * (len(images) - 1) / max(1, count - 1)) for i in range(count)})


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
