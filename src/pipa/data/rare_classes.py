"""Rare class sampling (DAFormer): statistics of the source's classes, and draws by them.

The statistics are read once from all labels, over all cores, and kept in a file that knows which
labels it was made of: a changed data set is noticed.
"""

import hashlib
import io
import logging
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RareClasses:
    """Draws a class, the rarer the likelier, and an image that holds enough of it.

    Args:
        counts: Pixels of each class in each image; an absent class is never drawn.
        rare_class_temperature: T; the lower it is, the more are rare classes preferred (papers:
            0.01).
        min_pixels: An image with no more pixels of the class is not drawn for it. None: 3000 as
            in the papers, for smaller images less in proportion to their area. For a class of
            which no image has that much it is halved until one has.
    """

    counts: Int[np.ndarray, "n k"]
    rare_class_temperature: float = 0.01
    min_pixels: int | None = None

    def __post_init__(self) -> None:
        """Prepare the tables that a draw looks up."""
        chances = class_probabilities(self.counts, self.rare_class_temperature)
        least = self.thresholds()
        images = [np.flatnonzero(self.counts[:, c] > t) for c, t in enumerate(least)]
        object.__setattr__(self, "_tables", (chances.cumsum(), least, images))

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """An image, the class that it was chosen for, and the class's `min_pixels`."""
        heights, least, images = self._tables  # type: ignore[attr-defined]
        chosen = int(np.searchsorted(heights, rng.random() * heights[-1], side="right"))
        fit = images[chosen]
        return int(fit[rng.integers(len(fit))]), chosen, int(least[chosen])

    def thresholds(self) -> Int[np.ndarray, " k"]:
        """`min_pixels` of each class."""
        area = self.counts.sum(axis=1).mean()
        proportional = round(MIN_PIXELS * min(1.0, area / MIN_PIXELS_OF))
        start = proportional if self.min_pixels is None else self.min_pixels
        least = np.full(self.counts.shape[1], start)
        most = self.counts.max(axis=0)
        while (short := (least >= most) & (least > 0)).any():
            least[short] //= 2
        return least


def class_probabilities(
    counts: Int[np.ndarray, "n k"], temperature: float
) -> Float[np.ndarray, " k"]:
    """Probability of drawing each class: P(c) ~ exp((1 - f_c) / T) over the classes that occur.

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
) -> Int[np.ndarray, "n k"]:
    """Pixels of each class in each label, from the file beside the data or from the labels.

    The file is written beside the data (`.pipa/`), or in the user's cache where that is not
    possible, whole or not at all.

    Args:
        images: A data set with labels.
        names: Names of the classes.
        skipped: Takes the faults; a faulty label then counts as empty. None: faults are raised.

    Raises:
        PipaError: A label is faulty.
    """
    key = _key(images, names)
    places = [images.root / ".pipa", cache_folder() / "class_counts"]
    for place in places:
        kept = _read(place / f"{key}.npz", (len(images), len(names)))
        if kept is not None:
            return kept
    counts, faults = _count(images, len(names))
    if faults:
        if skipped is None:
            raise faults[0]
        skipped.extend(faults)
        return counts
    buffer = io.BytesIO()
    np.savez_compressed(buffer, counts=counts)
    _write(places, f"{key}.npz", buffer.getvalue())
    return counts


def absent(counts: Int[np.ndarray, "n k"], names: Sequence[str]) -> list[str]:
    """Names of the classes that no label holds."""
    return [name for name, total in zip(names, counts.sum(axis=0), strict=True) if not total]


def _count(images: Segmentation, classes: int) -> tuple[Int[np.ndarray, "n k"], list[PipaError]]:
    """Read all labels, in threads: OpenCV decodes and counts without Python's lock."""

    def one(index: int) -> Int[np.ndarray, " k"] | PipaError:
        try:
            return count_pixels(images.label(index), classes)
        except PipaError as error:
            return error

    counts, faults = np.zeros((len(images), classes), np.int64), []
    for index, result in enumerate(in_threads(one, len(images), "Counting the classes")):
        if isinstance(result, PipaError):
            faults.append(result)
        else:
            counts[index] = result
    return counts, faults


def _key(images: Segmentation, names: Sequence[str]) -> str:
    """A name that changes with the labels' paths, sizes and times, and with the class table."""
    assert images.table is not None
    digest = hashlib.sha256(repr((names, sorted(images.table.ids.items()))).encode())
    digest.update(repr(sorted(images.table.colours.items())).encode())
    for pair in images.pairs:
        assert pair.label is not None
        try:
            state = pair.label.stat()
        except OSError as error:
            raise PipaError(f"cannot be read ({error.strerror})", pair.label) from error
        digest.update(f"{pair.label.absolute()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]


def _read(path: Path, shape: tuple[int, int]) -> Int[np.ndarray, "n k"] | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            counts = np.asarray(file["counts"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return counts if counts.shape == shape else None


def _write(places: Sequence[Path], name: str, data: bytes) -> None:
    """Keep the file in the first place that takes it; without one, count again next time."""
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
