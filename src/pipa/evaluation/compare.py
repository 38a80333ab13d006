"""Finished runs side by side: mean and spread over seeds, differences seed by seed.

Runs of one seed that differ in their losses alone start from the same weights and draw the same
source batches, so the difference of two rows is taken within each seed. Its interval is Student's,
and Holm's correction counts all comparisons of the table (see `significance`).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pipa.errors import PipaError
from pipa.evaluation.runs import Row, refuse_other_images
from pipa.evaluation.significance import (
    Interval,
    detectable_difference,
    holm,
    pooled_std,
    student_interval,
    t_test,
)

LEVEL = 0.05
"""A difference is marked if its p-value after Holm's correction is below this."""
POWER = 0.8
"""The probability with which the detectable difference is found."""


@dataclass(frozen=True)
class Difference:
    """mIoU of a row minus that of a reference, seed by seed, in points."""

    row: str
    reference: str
    by_seed: dict[int, float]

    @property
    def values(self) -> list[float]:
        """One of each seed that both have."""
        return list(self.by_seed.values())

    @property
    def mean(self) -> float:
        """Over the seeds that both have; NaN without any."""
        return mean(self.values)

    @property
    def interval(self) -> Interval | None:
        """Student's 95 % interval of the mean; None for fewer than two seeds."""
        return student_interval(self.values)


@dataclass(frozen=True)
class Comparison:
    """Rows, and the references that each is compared with.

    Args:
        rows: In the order of the table.
        against: Names of the reference rows.
    """

    rows: list[Row]
    against: list[str]

    def difference(self, row: Row, reference: str) -> Difference:
        """Of one row to a reference, over the seeds that both have."""
        other = self.named(reference).miou
        shared = {s: value - other[s] for s, value in row.miou.items() if s in other}
        return Difference(row.name, reference, shared)

    def differences(self) -> list[Difference]:
        """All that the table shows, those to one reference together."""
        return [
            self.difference(row, name)
            for name in self.against
            for row in self.rows
            if row.name != name
        ]

    @cached_property
    def tested(self) -> dict[frozenset[str], Difference]:
        """The comparisons that have two seeds or more; A minus B and B minus A are one."""
        found = {frozenset((d.row, d.reference)): d for d in self.differences()}
        return {pair: d for pair, d in found.items() if len(d.by_seed) > 1}

    @cached_property
    def adjusted(self) -> dict[frozenset[str], float]:
        """p-values of the paired t-tests after Holm's correction over all of `tested`."""
        p_values = [p for d in self.tested.values() if (p := t_test(d.values)) is not None]
        return dict(zip(self.tested, holm(p_values), strict=True))

    def adjusted_p(self, difference: Difference) -> float | None:
        """Of one difference; None for fewer than two seeds."""
        return self.adjusted.get(frozenset((difference.row, difference.reference)))

    def named(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    def detectable(self) -> "Detectable | None":
        """The true difference that the comparison with the fewest seeds would have shown.

        Returns:
            None if no comparison has two seeds.
        """
        samples = [difference.values for difference in self.tested.values()]
        std = pooled_std(samples)
        if std is None:
            return None
        seeds = min(map(len, samples))
        alone, corrected = (
            detectable_difference(std, seeds, level=level, power=POWER)
            for level in (LEVEL, LEVEL / len(samples))
        )
        return Detectable(seeds, std, alone, corrected)


@dataclass(frozen=True)
class Detectable:
    """True differences that paired t-tests find with a probability of `POWER`."""

    seeds: int
    """The fewest that a comparison has."""
    std: float
    """Standard deviation of the paired differences in points, pooled over all comparisons."""
    alone: float
    """In points, for a test at `LEVEL`."""
    corrected: float
    """In points, for a test at the first and strictest step of Holm's correction."""


def compare(rows: Sequence[Row], against: Sequence[str] = ()) -> Comparison:
    """Set rows beside each other.

    Args:
        rows: In the order of the table.
        against: Names of the rows that every row is compared with; the first row when empty.

    Raises:
        PipaError: There is no row, or none of that name, or two rows were scored on other images,
            at other sizes or on other classes.
    """
    if not rows:
        raise PipaError("nothing to compare", remedy="Give folders of finished runs.")
    names = [row.name for row in rows]
    for name in against:
        if name not in names:
            raise PipaError(f"no row is called {name!r}", "--against", f"Rows: {', '.join(names)}.")
    refuse_other_images({row.name: row.scored_on for row in rows})
    refuse_other_classes(rows)
    return Comparison(list(rows), list(against) or names[:1])


def refuse_other_classes(rows: Sequence[Row]) -> None:
    """Check that all scores are means over the same classes.

    Raises:
        PipaError: Two rows have other classes.
    """
    known = {row.name: {c for result in row.results.values() for c in result.iou} for row in rows}
    first, *others = known.items()
    for name, classes in others:
        if classes != first[1]:
            odd = ", ".join(sorted(classes ^ first[1])[:4])
            problem = f"is scored on other classes than row {first[0]} ({odd})"
            raise PipaError(problem, f"row {name}", "Compare only rows with the same classes.")


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN if there are no values."""
    return statistics.fmean(values) if values else math.nan
