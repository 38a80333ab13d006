"""What is known without labels: a few images of a target, and the class shares of a source."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt8

from pipa.data import crops
from pipa.data.crops import Size
from pipa.data.dataset import Segmentation, open_labelled
from pipa.data.find import find
from pipa.data.rare_classes import class_counts
from pipa.errors import PipaError
from pipa.files.images import fit_size

CROPS = 5
"""Of an image more than so many crops high or wide a part is judged: it would take minutes."""
MOST_PIXELS = 2**20
"""Of a larger image, `brightness_gap` looks at every n-th pixel only."""


def each_image(
    data: str,
    count: int,
    *,
    format: str = "folder",
    resize: Size | None = None,
    crop: Size | None = None,
    skipped: list[PipaError] | None = None,
) -> Iterator[UInt8[np.ndarray, "_ _ 3"]]:
    """Yield a few images, spread over a data set whose labels are not looked for.

    They come one at a time: photographs of a phone are large.

    Args:
        data: `[FORMAT[/SPLIT]:]PATH`.
        count: How many, at most.
        format: Format of a path without one.
        resize: Scale each image to fit into this; None: as it is.
        crop: Of an image more than `CROPS` crops of this size high or wide, take a part of so many,
            of each at another place; None: all of it.
        skipped: The list that unreadable files are added to; None: they are raised.

    Raises:
        PipaError: A file is not where it should be, unreadable, or none can be read.
    """
    images = Segmentation(find(data, "target", format, skipped=skipped), None)
    chosen = sorted({round(i) for i in np.linspace(0, len(images) - 1, min(count, len(images)))})
    found = 0
    for index in chosen:
        try:
            image = images.load(index).image
        except PipaError as error:
            if skipped is None:
                raise
            skipped.append(error)
            continue
        size = fit_size(image.shape[:2], resize)
        most = size if crop is None else (CROPS * crop[0], CROPS * crop[1])
        part = (min(size[0], most[0]), min(size[1], most[1]))
        rng = np.random.default_rng(index)
        corner = (
            int(rng.integers(size[0] - part[0] + 1)),
            int(rng.integers(size[1] - part[1] + 1)),
        )
        yield np.ascontiguousarray(crops.cut_image(image, size, corner, part))
        found += 1
    if not found:
        problem = f"none of the {len(chosen)} images that were looked at can be read"
        raise PipaError(problem, data, "`pipa data check` lists what is wrong with each.")


def source_pixels(
    source: str,
    *,
    classes: str | None = None,
    format: str = "folder",
    skipped: list[PipaError] | None = None,
) -> Int[np.ndarray, " k"]:
    """Pixels of each class in all labels of a source.

    Args:
        source: `[FORMAT[/SPLIT]:]PATH`.
        classes: The run's classes; None: the data set's own.
        format: Format of a path without one.
        skipped: The list that faulty labels are added to; None: they are raised.

    Raises:
        PipaError: A label is faulty.
    """
    images, labels = open_labelled(source, classes, role="source", default=format, skipped=skipped)
    return np.asarray(class_counts(images, labels.names, skipped).pixels.sum(axis=0))


def brightness_gap(
    source: str,
    target: str,
    *,
    format: str = "folder",
    count: int = 16,
    skipped: list[PipaError] | None = None,
) -> float:
    """How far apart the brightness of two data sets is, in standard deviations of their pixels.

    Streets and CamVid 0.03, Streets' game and camera up to 0.4, fluorescence and stain 5.9.

    Args:
        source: `[FORMAT[/SPLIT]:]PATH`.
        target: The same.
        format: Format of a path without one.
        count: How many images of each are looked at.
        skipped: The list that unreadable files are added to; None: they are raised.

    Raises:
        PipaError: A file is not where it should be, or unreadable.
    """
    means, variances = [], []
    for spec in (source, target):
        sums = np.zeros(3)  # of 1, of the brightness and of its square
        for image in each_image(spec, count, format=format, skipped=skipped):
            step = max(1, round((image.shape[0] * image.shape[1] / MOST_PIXELS) ** 0.5))
            grey = image[::step, ::step].mean(axis=2)
            sums += grey.size, grey.sum(), np.square(grey).sum()
        means.append(sums[1] / sums[0])
        variances.append(sums[2] / sums[0] - means[-1] ** 2)
    return float(abs(means[0] - means[1]) / np.sqrt(max(np.mean(variances), 1e-9)))
