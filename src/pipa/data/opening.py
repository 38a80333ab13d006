"""From a specification to images in the classes of the run."""

from collections.abc import Iterable

import numpy as np

from pipa.classes import LabelSpace
from pipa.data.dataset import Segmentation
from pipa.data.files import Files
from pipa.data.labels import ClassTable
from pipa.data.specs import Role, find
from pipa.data.tables import class_table, no_table
from pipa.errors import PipaError
from pipa.files.images import image_size, read_label

SMALL = 2**30
"""Bytes up to which `cache: auto` keeps the decoded images of all data sets together."""
_LOOKED_AT = 8  # images of a data set that are read before training


def open_labelled(
    spec: str, classes: str | None = None, *, role: Role = "validation", default: str = "folder"
) -> tuple[Segmentation, LabelSpace]:
    """Labelled images, and the classes of their labels.

    Args:
        spec: `[FORMAT[/SPLIT]:]PATH`.
        classes: The run's classes; None: the data set's own.
        role: Decides the split where the specification does not.
        default: Format of a specification that does not say its own.

    Raises:
        PipaError: A file is not where it should be, or nobody says what the ids mean.
    """
    files = find(spec, role, default)
    run = run_table(files, classes)
    return in_classes(files, run), run.labels


def run_table(source: Files, classes: str | None) -> ClassTable:
    """The classes of a run: those of the option, else those of the source.

    Raises:
        PipaError: There are none; the error says which ids were found and what to write.
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
    """The images of a data set, with its labels, where it has any, in the classes of the run.

    Raises:
        PipaError: The data set's own classes have nothing in common with the run's.
    """
    labelled = any(pair.label is not None for pair in files.pairs)
    own = files.table or run
    return Segmentation(files, own.towards(run.labels) if labelled else None, cache=cache)


def is_small(data: Iterable[Files], workers: int) -> bool:
    """Whether the decoded images fit into `SMALL` bytes, in each of the workers' memories."""
    total = 0
    for files in data:
        try:
            height, width = image_size(files.pairs[0].image)
        except PipaError:  # said, or skipped, when the image is loaded
            return False
        total += len(files.pairs) * height * width * 4
    return total * max(1, workers) <= SMALL


def some(images: Segmentation) -> Iterable[int]:
    """A few indices, spread over the data set: what is looked at before a long training."""
    count = min(_LOOKED_AT, len(images))
    return sorted({round(i * (len(images) - 1) / max(1, count - 1)) for i in range(count)})
