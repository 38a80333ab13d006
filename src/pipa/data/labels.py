"""What the numbers in label files mean: raw ids or colours, and the class of each.

Reading a `classes.yaml` is in `tables`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int, Integer, UInt8

from pipa.classes import CITYSCAPES, CITYSCAPES_IDS, IGNORE_INDEX, Colour, LabelSpace
from pipa.errors import PipaError

_UNKNOWN = 254  # stands for an id outside the table until that is refused


@dataclass(frozen=True)
class ClassTable:
    """What the numbers in a data set's label files mean.

    Args:
        labels: The classes.
        ids: Class of each raw id; 255 for an id that is no class. An id that is not listed is a
            fault.
        colours: Raw id of each colour, for label files that hold RGB.
        origin: Where the table comes from, for errors.
        first_channel: The ids are in the first of several channels (SYNTHIA; instances follow).
    """

    labels: LabelSpace
    ids: Mapping[int, int]
    colours: Mapping[Colour, int] = field(default_factory=dict)
    origin: str = "the classes"
    first_channel: bool = False

    def encode(
        self, raw: Integer[np.ndarray, "h w"] | Integer[np.ndarray, "h w c"], where: Path
    ) -> UInt8[np.ndarray, "h w"]:
        """Give each pixel its class, 255 where it has none.

        Args:
            raw: Ids, or colours in the order R G B (further channels are ignored).
            where: The file, for the error.

        Raises:
            PipaError: An id or a colour is not in the table.
        """
        if raw.ndim == 3:
            raw = raw[..., 0] if self.first_channel else self._uncolour(raw, where)
        high = int(raw.max(initial=0))
        if high < 256 and int(raw.min(initial=0)) >= 0:
            encoded = np.asarray(cv2.LUT(raw.astype(np.uint8), self._lookup))
            if not (encoded == _UNKNOWN).any():
                return encoded
        found = [int(i) for i in np.unique(raw) if i not in self.ids and i != IGNORE_INDEX]
        raise PipaError(
            f"label id {', '.join(map(str, found[:5]))} is not in {self.origin} "
            f"(ids {_ranges(self.ids)}, and 255 for no class)",
            where,
            "Fix the label file, or add the id to the class table.",
        )

    def mapped_to(self, labels: LabelSpace) -> "ClassTable":
        """Map this table to another label space.

        Two classes are matched by the Cityscapes classes that they group, if both have some, or
        else by name; a class that is not in `labels` becomes 255.

        Raises:
            PipaError: Not a single class matches.
        """
        if labels.names == self.labels.names:
            return self
        move = _by_names(self.labels, labels) | _by_groups(self.labels, labels)
        if not move:
            raise PipaError(
                f"none of its classes ({', '.join(self.labels.names[:4])}, ...) is one of the "
                f"run's ({', '.join(labels.names[:4])}, ...)",
                self.origin,
                "Give the classes the same names, or `cityscapes: [ids]` in both class tables.",
            )
        ids = {raw: move.get(own, IGNORE_INDEX) for raw, own in self.ids.items()}
        return replace(self, labels=labels, ids=ids)

    @cached_property
    def _lookup(self) -> UInt8[np.ndarray, "256"]:
        table = np.full(256, _UNKNOWN, np.uint8)
        table[IGNORE_INDEX] = IGNORE_INDEX
        for raw, own in self.ids.items():
            table[raw] = own
        return table

    def _uncolour(
        self, raw: Integer[np.ndarray, "h w c"], where: Path
    ) -> Integer[np.ndarray, "h w"]:
        """Convert colours to raw ids; grey stored as RGB is taken for ids."""
        red, green, blue = (raw[..., c].astype(np.int64) for c in range(3))
        packed = (red << 32) + (green << 16) + blue
        values, back = np.unique(packed, return_inverse=True)
        known = {(r << 32) + (g << 16) + b: i for (r, g, b), i in self.colours.items()}
        unknown = [int(v) for v in values if int(v) not in known]
        if not unknown:
            ids = np.array([known[int(v)] for v in values], np.int64)
            return np.asarray(ids[back].reshape(packed.shape))
        if (red == green).all() and (green == blue).all():
            return red
        colour = (unknown[0] >> 32, unknown[0] >> 16 & 0xFFFF, unknown[0] & 0xFFFF)
        raise PipaError(
            f"colour {colour} is not in {self.origin}",
            where,
            "Add it to classes.yaml as the `color` of a class, or under `ignore`.",
        )


def count_pixels(label: UInt8[np.ndarray, "h w"], classes: int) -> Int[np.ndarray, " k"]:
    """Count the pixels of each of the classes 0..k-1 in a label."""
    if label.size < 2**16:
        return np.bincount(label.ravel(), minlength=256)[:classes]
    rows = max(1, 2**24 // max(1, label.shape[1]))  # OpenCV counts in float32: exact up to 2^24
    total = np.zeros(256, np.int64)
    for top in range(0, label.shape[0], rows):
        part = cv2.calcHist([label[top : top + rows]], [0], None, [256], [0, 256])
        total += part.ravel().astype(np.int64)
    return total[:classes]


def ids_table(labels: LabelSpace, origin: str = "the classes") -> ClassTable:
    """Return the table of label files that hold the ids 0..k-1 of `labels`, or their colours."""
    colours = {colour: i for i, colour in reversed(list(enumerate(labels.colours)))}
    return ClassTable(labels, {i: i for i in range(labels.num_classes)}, colours, origin)


def _by_groups(own: LabelSpace, run: LabelSpace) -> dict[int, int]:
    """Map each class of `own` to the class of `run` that holds all its Cityscapes classes."""
    return {
        i: j
        for i, group in enumerate(own.cityscapes)
        for j, other in enumerate(run.cityscapes)
        if group and set(group) <= set(other)
    }


def _by_names(own: LabelSpace, run: LabelSpace) -> dict[int, int]:
    """Map each class of `own` to that of the same name, unless both group Cityscapes classes."""
    place = {name.casefold(): j for j, name in enumerate(run.names)}
    pairs = ((i, place.get(name.casefold())) for i, name in enumerate(own.names))
    grouped = [{i for i, group in enumerate(space.cityscapes) if group} for space in (own, run)]
    return {i: j for i, j in pairs if j is not None and not (i in grouped[0] and j in grouped[1])}


def _ranges(ids: Mapping[int, int]) -> str:
    """Shorten the ids to `0-18` where they are consecutive."""
    known = sorted(ids)
    if known == list(range(known[0], known[-1] + 1)):
        return f"{known[0]}-{known[-1]}"
    return ", ".join(map(str, known))


# fmt: off
_SYNTHIA_IDS = {
    1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18, 12: 17, 15: 6, 16: 9,
    17: 12, 18: 14, 19: 15, 20: 16, 21: 3,
}
# fmt: on


def _with_void(ids: Mapping[int, int], last: int) -> dict[int, int]:
    return {raw: ids.get(raw, IGNORE_INDEX) for raw in range(last + 1)}


_TRAIN_OF_ID = {raw: train for train, raw in enumerate(CITYSCAPES_IDS)}
CITYSCAPES_LABEL_IDS = ClassTable(
    CITYSCAPES, _with_void(_TRAIN_OF_ID, 33), {}, "Cityscapes' label ids"
)
"""`*_labelIds.png` of Cityscapes and ACDC; GTA5's palette indices are the same ids."""
GTA5_IDS = ClassTable(CITYSCAPES, _with_void(_TRAIN_OF_ID, 34), {}, "GTA5's label ids")
SYNTHIA_IDS = ClassTable(
    CITYSCAPES, _with_void(_SYNTHIA_IDS, 22), {}, "SYNTHIA's label ids", first_channel=True
)
TRAIN_IDS = ids_table(CITYSCAPES, "Cityscapes' train ids")
"""`*_labelTrainIds.png`."""
