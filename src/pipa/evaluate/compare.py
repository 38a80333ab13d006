"""Finished runs side by side: mean and spread over seeds, differences seed by seed.

Runs of one seed start from the same weights and draw the same source batches, so the difference
of two rows is taken within each seed. Its interval is the percentile bootstrap's over seeds (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). With three seeds such an
interval is little more than the range of the three differences; five are the least to lean on.
"""

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from pipa.data.images import write_bytes
from pipa.errors import PipaError
from pipa.evaluate.plots import strips
from pipa.evaluate.scores import Result, write_whole

ENUMERABLE = 6
"""Up to so many seeds every resample is looked at; n to the n of them."""


@dataclass
class Row:
    """The runs of one setting."""

    name: str
    results: dict[int, Result] = field(default_factory=dict)
    """Scores by seed."""
    seconds: dict[int, float] = field(default_factory=dict)
    """Wall time by seed, where it was recorded."""

    @property
    def miou(self) -> dict[int, float]:
        """Mean IoU in percent, by seed."""
        return {seed: result.miou for seed, result in self.results.items()}


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
        head = ["", "mIoU", "seeds", *(f"- {name}" for name in self.against), "time"]
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
        table = Table(title="mIoU in percent, mean ± std over seeds", title_justify="left")
        for place, title in enumerate(head):
            table.add_column(title, justify="right" if place else "left")
        for cells in body:
            table.add_row(*cells)
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
                "95 % interval of a bootstrap over seeds.",
                grid(head, body),
                "Each seed:",
                grid(["", *(f"seed {seed}" for seed in seeds)], single),
                "IoU of each class, mean over seeds:",
                grid(["", *(row.name for row in self.rows)], by_class),
            ]
        )

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
        write_whole(files[0], self.markdown() + "\n")
        write_whole(files[1], json.dumps(self.as_dict(), indent=1) + "\n")
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


def read_run(folder: Path) -> tuple[int, Result, float | None]:
    """Seed, scores and wall time of a finished run.

    Raises:
        PipaError: It is no finished run with scores.
    """
    file = folder / "results.json"
    remedy = "Give a run that ended and had --data.validation."
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return int(stored["seed"]), Result.from_dict(stored), stored.get("seconds")
    except OSError as error:
        raise PipaError(f"cannot be read ({error.strerror})", file, remedy) from error
    except (ValueError, KeyError, TypeError) as error:
        raise PipaError("holds no scores of a run", file, remedy) from error


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
    if not difference.by_seed:
        return "-"
    ends = difference.interval
    around = "" if ends is None else f" [{ends[0]:+.1f}, {ends[1]:+.1f}]"
    return f"{difference.mean:+.1f}{around}"


def figure(value: float | None) -> str:
    """One decimal, or a dash."""
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its first column to the left."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body))
