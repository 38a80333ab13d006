"""Features of two domains in two dimensions, and how far apart the domains are.

Each network has a plane of its own: the first two principal components of its features. The
figures are taken in all dimensions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

from pipa.batch import IGNORE_INDEX

Points = tuple[Float[np.ndarray, "_ d"], Int[np.ndarray, " _"]]
"""Features, and the class of each; 255: unknown."""


@dataclass(frozen=True)
class Features:
    """Points of source and target in a plane."""

    source: Float[np.ndarray, "n 2"]
    target: Float[np.ndarray, "m 2"]
    source_class: Int[np.ndarray, " n"]
    target_class: Int[np.ndarray, " m"]
    apart: float
    """Share of points whose nearest other point is of their own domain: 1 if the domains are
    apart, about `expected` if they are mixed."""
    expected: float
    """`apart` of points whose domain means nothing."""


def project(source: Points, target: Points) -> Features:
    """Project features of two domains on the plane in which they vary most (PCA)."""
    (one, one_class), (other, other_class) = source, target
    together = np.concatenate([one, other])
    centred = together - together.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T
    if plane.shape[1] < 2:  # a single point, or a single channel
        plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    domain = np.repeat([0, 1], [len(one), len(other)])
    share = np.array([len(one), len(other)])
    return Features(
        plane[: len(one)],
        plane[len(one) :],
        one_class,
        other_class,
        float((domain[nearest(together)] == domain).mean()),
        float((share * (share - 1)).sum() / (len(domain) * max(1, len(domain) - 1))),
    )


def nearest(points: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " n"]:
    """Return the nearest other point of each."""
    square = (points**2).sum(axis=1)
    distance = square[:, None] + square - 2 * points @ points.T
    np.fill_diagonal(distance, np.inf)
    return np.asarray(distance.argmin(axis=1))


def scattered(
    label: Integer[np.ndarray, "h w"], count: int, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Draw rows and columns of pixels, about as many of each class, none without a class.

    Args:
        label: Class ids; 255 where a pixel has none.
        count: Maximum number of pixels.
        rng: Makes the choice.
    """
    places = np.flatnonzero(label != IGNORE_INDEX)
    if not len(places):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    classes, counts = np.unique(label.ravel()[places], return_counts=True)
    weight = 1 / counts[np.searchsorted(classes, label.ravel()[places])]
    chosen = rng.choice(places, min(count, len(places)), replace=False, p=weight / weight.sum())
    rows, columns = np.unravel_index(np.sort(chosen), label.shape)
    return np.asarray(rows), np.asarray(columns)
