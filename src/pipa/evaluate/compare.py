"""Finished runs side by side: mean and spread over seeds, differences seed by seed.

Runs of one seed that differ in their losses alone start from the same weights and draw the same
source batches, so the difference of two rows is taken within each seed. Its interval is the
percentile bootstrap's over seeds (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13). Of few seeds it is too narrow: if differences are normal, it holds the truth in 68 % of
all cases with three seeds, in 84 % with five. Student's t has no such fault there and stands beside
it in `table.md` and `table.json`.
"""

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from pipa.errors import PipaError
from pipa.evaluate.plots import strips
from pipa.evaluate.runs import Row
from pipa.evaluate.scores import figure
from pipa.files.writing import write_bytes, write_text

ENUMERABLE = 6
"""Up to so many seeds every resample is looked at; n to the n of them."""
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)
"""97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Difference:
    """mIoU of a row minus that of a reference, seed by seed, in points."""

    by_seed: dict[int, float]

    @property
    def mean(self) -> float:
        """Over the seeds that both have; NaN without any."""
        return mean(list(self.by_seed.values()))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of the bootstrap's means; None for fewer than two seeds."""
        return bootstrap_interval(list(self.by_seed.values()))

    @property
    def student(self) -> tuple[float, float] | None:
        """Student's 95 % interval of the mean; None for fewer than 2 or more than 13 seeds."""
        values = list(self.by_seed.values())
        if not 2 <= len(values) <= len(STUDENT) + 1:
            return None
        half = STUDENT[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
        return self.mean - half, self.mean + half


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
        return Difference({s: value - other[s] for s, value in row.miou.items() if s in other})

    def named(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    def lines(self) -> list[list[str]]:
        """The table's cells, its head first."""
        head = ["", "mIoU", "seeds", *(f"minus {name}" for name in self.against), "time"]
        return [head, *([row.name, *self._cells(row)] for row in self.rows)]

    def _cells(self, row: Row) -> list[str]:
        values = list(row.miou.values())
        spent = [*row.seconds.values()]
        return [
            spread(values),
            str(len(values)),
            *(
                "" if name == row.name else change(self.difference(row, name))
                for name in self.against
            ),
            f"{statistics.mean(spent):.0f} s" if spent else "",
        ]

    def table(self) -> Table:
        """For the terminal."""
        head, *body = self.lines()
        title = (
            "mIoU in percent, mean ± std over seeds; [95 % interval] of a bootstrap, too\n"
            "narrow for few seeds: Student's is in table.md"
        )
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for place, title in enumerate(head):
            table.add_column(escape(title), justify="right" if place else "left")
        for cells in body:
            table.add_row(*map(escape, cells))
        return table

    def markdown(self) -> str:
        """The same for a README, and the figure of each seed."""
        head, *body = self.lines()
        seeds = sorted({seed for row in self.rows for seed in row.results})
        single = [[row.name, *(figure(row.miou.get(seed)) for seed in seeds)] for row in self.rows]
        classes = list(dict.fromkeys(c for row in self.rows for c in class_means(row)))
        means = {row.name: class_means(row) for row in self.rows}
        by_class = [[c, *(figure(means[row.name].get(c)) for row in self.rows)] for c in classes]
        return "\n\n".join(
            [
                "mIoU in percent, mean ± std over seeds; differences are paired by seed, with the\n"
                "95 % interval of a bootstrap over seeds. Of few seeds that is too narrow: see\n"
                "Student's below. Times are without the start of a process.",
                grid(head, body),
                "Differences:",
                grid(["", "minus", "seeds", "mean", "bootstrap", "Student's t"], self._details()),
                "Each seed:",
                grid(["", *(f"seed {seed}" for seed in seeds)], single),
                "IoU of each class, mean over seeds:",
                grid(["", *(row.name for row in self.rows)], by_class),
            ]
        )

    def _details(self) -> list[list[str]]:
        found = [
            (row.name, name, self.difference(row, name))
            for name in self.against
            for row in self.rows
            if row.name != name
        ]
        return [
            [row, name, str(len(d.by_seed)), signed(d.mean), ends(d.interval), ends(d.student)]
            for row, name, d in found
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            row.name: {
                "miou": {str(seed): value for seed, value in row.miou.items()},
                "iou": class_means(row),
                "seconds": {str(seed): value for seed, value in row.seconds.items()},
                "differences": {
                    name: {
                        "by_seed": {str(s): v for s, v in difference.by_seed.items()},
                        "interval": difference.interval,
                        "student": difference.student,
                    }
                    for name in self.against
                    if name != row.name
                    for difference in [self.difference(row, name)]
                },
            }
            for row in self.rows
        }

    def write(self, folder: Path) -> list[Path]:
        """Write `table.md`, `table.json` and `table.svg`; what was written.

        Raises:
            PipaError: A file cannot be written.
        """
        files = [folder / f"table.{form}" for form in ("md", "json", "svg")]
        write_text(files[0], self.markdown() + "\n")
        write_text(files[1], json.dumps(self.as_dict(), indent=1) + "\n")
        changes = {
            name: {
                row.name: list(self.difference(row, name).by_seed.values())
                for row in self.rows
                if row.name != name
            }
            for name in self.against
        }
        write_bytes(
            files[2], strips({row.name: list(row.miou.values()) for row in self.rows}, changes)
        )
        return files


def compare(rows: Sequence[Row], against: Sequence[str] = ()) -> Comparison:
    """Set rows beside each other.

    Args:
        rows: In the order of the table.
        against: Names of the rows that every row is compared with; the first row when empty.

    Raises:
        PipaError: There is no row, or none of that name.
    """
    if not rows:
        raise PipaError("nothing to compare", remedy="Give folders of finished runs.")
    names = [row.name for row in rows]
    for name in against:
        if name not in names:
            raise PipaError(f"no row is called {name!r}", "--against", f"Rows: {', '.join(names)}.")
    return Comparison(list(rows), list(against) or names[:1])


def bootstrap_interval(
    values: Sequence[float], *, share: float = 0.95, draws: int = 20_000
) -> tuple[float, float] | None:
    """Percentile interval of the mean under resampling with replacement.

    Args:
        values: One of each seed.
        share: Of the resamples' means that lies inside.
        draws: Resamples where there are too many to look at all (then from a fixed seed).

    Returns:
        Lower and upper end; None for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return None
    if count <= ENUMERABLE:
        means = np.array([sum(some) for some in itertools.product(values, repeat=count)]) / count
    else:
        means = np.random.default_rng(0).choice(values, (draws, count)).mean(axis=1)
    outside = (1 - share) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)


def class_means(row: Row) -> dict[str, float]:
    """IoU of each class, in percent, the mean over the seeds that have a value."""
    names = dict.fromkeys(name for result in row.results.values() for name in result.iou)
    found = {
        name: [v for r in row.results.values() if (v := r.iou.get(name)) is not None]
        for name in names
    }
    return {name: mean(values) for name, values in found.items() if values}


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return statistics.fmean(values) if values else math.nan


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation (of a sample: over n - 1)."""
    if len(values) < 2:
        return figure(mean(values))
    return f"{mean(values):.1f} ± {statistics.stdev(values):.1f}"


def change(difference: Difference) -> str:
    """A mean difference with its interval."""
    return f"{signed(difference.mean)} {ends(difference.interval)}".rstrip(" -")


def signed(value: float) -> str:
    """One decimal and a sign, or a dash."""
    return "-" if math.isnan(value) else f"{round(value, 1) or 0.0:+.1f}"


def ends(interval: tuple[float, float] | None) -> str:
    """Of an interval, or a dash."""
    return "-" if interval is None else f"[{signed(interval[0])}, {signed(interval[1])}]"


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its first column to the left."""
    rule = ["---", *("---:" for _ in head[1:])]
    rows = ([cell.replace("|", "/") for cell in cells] for cells in (head, rule, *body))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
