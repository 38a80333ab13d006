"""Rare class sampling (DAFormer, CVPR 2022): statistics of the source, and draws by them.

The statistics are read once from all labels, over all cores, and kept in a file whose name depends
on these labels: those of a changed data set are counted anew.
"""

import hashlib
import io
import logging
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pipa.data.dataset import Segmentation
from pipa.data.labels import count_pixels
from pipa.errors import PipaError
from pipa.files.cache import cache_folder
from pipa.files.threads import in_threads
from pipa.files.writing import write_bytes

MIN_PIXELS, MIN_PIXELS_OF = 3000, 1914 * 1052
"""DAFormer's `min_pixels`, and the area of the images (GTA5) that it was chosen for."""

FEW_OF = 10
"""Of fewer images than this, half of all draws come from few in any case."""

log = logging.getLogger(__name__)


class ClassCounts(NamedTuple):
    """What the labels of a data set hold."""

    pixels: Int[np.ndarray, "n k"]
    """Pixels of each class in each image."""
    area: Int[np.ndarray, " n"]
    """Pixels of each image, with and without a class; 0 for an image that cannot be read."""


@dataclass(frozen=True)
class RareClasses:
    """Draws a class (the rarer, the likelier) and an image that holds enough of it.

    Args:
        counts: What the labels hold; a class that is absent from all of them is never drawn.
        rare_class_temperature: T; the lower it is, the more are rare classes preferred (papers:
            0.01).
        min_pixels: An image with no more pixels of the class is not drawn for it. None: 3000 as
            in the papers, and in proportion to their area for images smaller than GTA5's. For a
            class of which no image has that many it is halved until one has.
    """

    counts: ClassCounts
    rare_class_temperature: float = 0.01
    min_pixels: int | None = None

    def __post_init__(self) -> None:
        """Prepare the tables that a draw looks up."""
        pixels = self.counts.pixels
        chances = class_probabilities(pixels, self.rare_class_temperature)
        thresholds = self.thresholds()
        images = [np.flatnonzero(pixels[:, c] > t) for c, t in enumerate(thresholds)]
        object.__setattr__(self, "_tables", (chances.cumsum(), thresholds, images))

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Draw an image; return it, the class that it was chosen for, and the class's threshold."""
        heights, thresholds, images = self._tables  # type: ignore[attr-defined]
        chosen = int(np.searchsorted(heights, rng.random() * heights[-1], side="right"))
        fit = images[chosen]
        return int(fit[rng.integers(len(fit))]), chosen, int(thresholds[chosen])

    def half_of_all(self) -> tuple[int, int]:
        """Return how few images make up half of all draws, and the class that most are drawn for.

        Where a rare class lies in two of 300 images, nearly all crops may come from these two.
        """
        heights, _, images = self._tables  # type: ignore[attr-defined]
        chances = np.diff(heights, prepend=0.0)
        drawn = np.zeros(len(self.counts.pixels))
        for chance, fit in zip(chances, images, strict=True):
            if chance > 0:
                drawn[fit] += chance / len(fit)
        half = np.searchsorted(np.sort(drawn)[::-1].cumsum(), 0.5 - 1e-9) + 1
        return int(half), int(chances.argmax())

    def thresholds(self) -> Int[np.ndarray, " k"]:
        """Return the `min_pixels` of each class."""
        pixels, area = self.counts
        share = min(1.0, area[area > 0].mean() / MIN_PIXELS_OF)
        start = round(MIN_PIXELS * share) if self.min_pixels is None else self.min_pixels
        thresholds = np.full(pixels.shape[1], start)
        available = pixels.max(axis=0)
        while (short := (thresholds >= available) & (thresholds > 0)).any():
            thresholds[short] //= 2
        return thresholds


def rare_classes(
    images: Segmentation,
    names: Sequence[str],
    temperature: float,
    min_pixels: int | None = None,
    skipped: list[PipaError] | None = None,
) -> RareClasses:
    """Count the classes of the source for its draws; say which are absent or in few images.

    Args:
        images: A data set with labels.
        names: Names of the classes.
        temperature: T.
        min_pixels: As in `RareClasses`.
        skipped: As in `class_counts`.

    Raises:
        PipaError: A label is faulty, or none holds a class.
    """
    counts = class_counts(images, names, skipped)
    if missing := absent(counts.pixels, names):
        log.warning("the source has no pixel of: %s", ", ".join(missing))
    rare = RareClasses(counts, temperature, min_pixels)
    half, rarest = rare.half_of_all()
    if len(images) >= FEW_OF and half <= max(2, len(images) // 50):
        log.warning(
            "rare class sampling draws half of all crops from %d of %d source images, most of them"
            " for %s; --data.rare_class_temperature 0.1 draws more evenly, null draws all alike",
            half,
            len(images),
            names[rarest],
        )
    return rare


def class_probabilities(
    counts: Int[np.ndarray, "n k"], temperature: float
) -> Float[np.ndarray, " k"]:
    """Return the probability of each class: P(c) ~ exp((1 - f_c) / T) over those that occur.

    Args:
        counts: Pixels of each class in each image.
        temperature: T.

    Raises:
        PipaError: No pixel of any image has a class, or T is not above 0.
    """
    if not temperature > 0:
        raise PipaError(f"the temperature of rare class sampling is {temperature}, not above 0")
    pixels = counts.sum(axis=0).astype(np.float64)
    present = pixels > 0
    if not present.any():
        raise PipaError("no label holds a pixel of any class", remedy="Look at the class table.")
    shares = pixels / pixels.sum()
    heights = np.where(present, (1 - shares) / temperature, -np.inf)
    weights = np.exp(heights - heights.max())
    return np.asarray(weights / weights.sum())


def class_counts(
    images: Segmentation, names: Sequence[str], skipped: list[PipaError] | None = None
) -> ClassCounts:
    """Count the pixels of each class in each label, or read what was counted before.

    The counts are kept beside the data (in `.pipa/`), or in the user's cache if that is not
    possible.

    Args:
        images: A data set with labels.
        names: Names of the classes.
        skipped: The list that faults are added to; a faulty label then counts as empty. None: a
            fault is raised.

    Raises:
        PipaError: A label is faulty.
    """
    key = _key(images, names)
    places = [images.root / ".pipa", cache_folder() / "class_counts"]
    for place in places:
        kept = _read(place / f"{key}.npz", len(images), len(names))
        if kept is not None:
            return kept
    counts, faults = _count(images, len(names))
    if faults:
        if skipped is None:
            raise faults[0]
        skipped.extend(faults)
        return counts
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **counts._asdict())
    _write(places, f"{key}.npz", buffer.getvalue())
    return counts


def absent(counts: Int[np.ndarray, "n k"], names: Sequence[str]) -> list[str]:
    """Return the names of the classes of which no image has a pixel."""
    totals = counts.sum(axis=0)
    return [name for name, total in zip(names, totals, strict=True) if not total]


def _count(images: Segmentation, classes: int) -> tuple[ClassCounts, list[PipaError]]:
    """Read all labels, in threads: OpenCV decodes and counts without Python's lock."""

    def one(index: int) -> tuple[Int[np.ndarray, " k"], int] | PipaError:
        try:
            label = images.label(index)
        except PipaError as error:
            return error
        return count_pixels(label, classes), label.size

    pixels, area = np.zeros((len(images), classes), np.int64), np.zeros(len(images), np.int64)
    faults = []
    for index, result in enumerate(in_threads(one, len(images), "Counting the classes")):
        if isinstance(result, PipaError):
            faults.append(result)
        else:
            pixels[index], area[index] = result
    return ClassCounts(pixels, area), faults


def _key(images: Segmentation, names: Sequence[str]) -> str:
    """Return a name that depends on the labels' paths, sizes and times, and on the class table."""
    assert images.table is not None
    digest = hashlib.sha256(repr((names, sorted(images.table.ids.items()))).encode())
    digest.update(repr(sorted(images.table.colours.items())).encode())
    for pair in images.pairs:
        assert pair.label is not None
        try:
            state = pair.label.stat()
        except OSError as error:
            raise PipaError(f"cannot be read ({error.strerror})", pair.label) from error
        file = f"{pair.label.absolute()} {state.st_size} {state.st_mtime_ns}\n"
        digest.update(os.fsencode(file))  # the name may be no UTF-8
    return digest.hexdigest()[:20]


def _read(path: Path, images: int, classes: int) -> ClassCounts | None:
    """Read the file; None if it is missing, damaged, or of another data set."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            counts = ClassCounts(*(np.asarray(file[name]) for name in ClassCounts._fields))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    fits = counts.pixels.shape == (images, classes) and counts.area.shape == (images,)
    return counts if fits else None


def _write(places: Sequence[Path], name: str, data: bytes) -> None:
    """Write the file to the first place where that is possible; if none is, do without."""
    for place in places:
        try:
            there = next(folder for folder in place.parents if folder.exists())
            if not there.stat().st_mode & 0o222:  # read-only, to root as well
                continue
            place.mkdir(parents=True, exist_ok=True)
            write_bytes(place / name, data)
        except (OSError, PipaError) as error:
            log.info("class statistics not kept in %s: %s", place, error)
            continue
        return
