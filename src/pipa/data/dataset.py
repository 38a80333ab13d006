"""From paths to arrays: full images with their labels, in the run's classes."""

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from pipa.data.files import Files, Pair
from pipa.data.labels import ClassTable
from pipa.errors import PipaError
from pipa.files.images import read_image, read_label


class Sample(NamedTuple):
    """A full image and its classes; no classes where the data set has none for us."""

    image: UInt8[np.ndarray, "h w 3"]
    label: UInt8[np.ndarray, "h w"] | None
    path: Path
    """The image's file, for errors."""


class Segmentation:
    """The images of a data set, decoded on demand, with labels in the run's classes.

    Args:
        files: Its files.
        table: What its label files hold, in the run's classes.
        cache: Keep every decoded image in memory (of this process).
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
        """The image so many files after this one in its folder (before it, where negative).

        Files count by name. At an end of the folder it is the last, or first, image there is.
        """
        row = self._folders[self.pairs[index].image.parent]
        return row[min(max(row.index(index) + steps, 0), len(row) - 1)]

    @cached_property
    def _folders(self) -> dict[Path, list[int]]:
        """The images of each folder, by name."""
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


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
