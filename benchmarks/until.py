"""How often Student's interval holds the truth when seeds are added until it is narrow.

python benchmarks/until.py

The rule of `pipa ablate --until`, on 100,000 tables of one normal difference with standard
deviation 1, at most 40 seeds. Prints the shares that docs/results.md shows.
"""

import numpy as np
from scipy.special import stdtrit

TABLES, MOST_SEEDS = 100_000, 40


def main() -> None:
    """Print the share of intervals that hold 0, and the mean number of seeds."""
    seeds = np.arange(1, MOST_SEEDS + 1)
    drawn = np.random.default_rng(0).normal(size=(TABLES, MOST_SEEDS))
    mean = drawn.cumsum(axis=1) / seeds
    variance = ((drawn**2).cumsum(axis=1) - seeds * mean**2) / np.maximum(seeds - 1, 1)
    half = np.full(drawn.shape, np.inf)
    half[:, 1:] = stdtrit(seeds[1:] - 1, 0.975) * np.sqrt(variance[:, 1:].clip(0) / seeds[1:])
    each = np.arange(TABLES)
    for start in (2, 3, 5):
        for width in (0.5, 0.7, 1.0, 1.5):
            narrow = half <= width
            narrow[:, : start - 1] = False
            stop = np.where(narrow.any(axis=1), narrow.argmax(axis=1), MOST_SEEDS - 1)
            held = (abs(mean[each, stop]) <= half[each, stop]).mean()
            spent = (stop + 1).mean()
            print(f"start {start}, until ± {width}: {held:.0%} hold the truth, {spent:.1f} seeds")


if __name__ == "__main__":
    main()
