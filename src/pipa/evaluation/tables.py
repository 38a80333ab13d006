"""A comparison as a table: for the terminal, as Markdown, as JSON and as a figure."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from pipa.evaluation.compare import LEVEL, POWER, Comparison, Difference, mean
from pipa.evaluation.plots import strips
from pipa.evaluation.runs import Row
from pipa.evaluation.scores import figure, synthia_means
from pipa.evaluation.significance import Interval, bootstrap_interval, t_test
from pipa.files.writing import write_bytes, write_text


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `table.md`, `table.json` and `table.svg`; return their paths.

    Raises:
        PipaError: A file cannot be written.
    """
    files = [folder / f"table.{form}" for form in ("md", "json", "svg")]
    write_text(files[0], markdown(comparison) + "\n")
    write_text(files[1], json.dumps(as_dict(comparison), indent=1) + "\n")
    changes: dict[str, dict[str, list[float]]] = {name: {} for name in comparison.against}
    for difference in comparison.differences():
        changes[difference.reference][difference.row] = difference.values
    values = {row.name: list(row.miou.values()) for row in comparison.rows}
    write_bytes(files[2], strips(values, changes))
    return files


def cells(comparison: Comparison) -> list[list[str]]:
    """Return the table's cells, its head first."""
    head = ["", "mIoU", "seeds", *(f"minus {name}" for name in references(comparison)), "time"]
    return [head, *(row_cells(comparison, row) for row in comparison.rows)]


def references(comparison: Comparison) -> list[str]:
    """The rows that have a column of differences: none if there is nothing to compare."""
    return comparison.against if len(comparison.rows) > 1 else []


def row_cells(comparison: Comparison, row: Row) -> list[str]:
    """Return the cells of one row."""
    values, spent = list(row.miou.values()), list(row.seconds.values())
    known = references(comparison)
    changes = ["" if name == row.name else change(comparison, row, name) for name in known]
    time = f"{statistics.mean(spent):.0f} s" if spent else ""
    return [row.name, spread(values), str(len(values)), *changes, time]


def change(comparison: Comparison, row: Row, reference: str) -> str:
    """A mean difference with its mark and its interval."""
    difference = comparison.difference(row, reference)
    p = comparison.adjusted_p(difference)
    mark = "*" if p is not None and p < LEVEL else ""
    return said(difference, mark, count=len(difference.by_seed) != len(row.miou))


def said(difference: Difference, mark: str = "", *, count: bool = True) -> str:
    """A mean difference with its interval and, if asked for, its seeds; or "one seed"."""
    seeds = len(difference.by_seed)
    if seeds == 0:
        return "no seed in common"
    if seeds == 1:
        return f"{signed(difference.mean)}{mark} (one seed)"
    words = f"{signed(difference.mean)}{mark} {ends(difference.interval)}"
    return f"{words} ({seeds} seeds)" if count else words


def notes(comparison: Comparison) -> list[str]:
    """Sentences below the table: what was scored, and what the differences can tell."""
    scored = [f"Scored on: {comparison.rows[0].scored_on}.", *synthia_notes(comparison)]
    count = len(comparison.tested)
    if len(comparison.rows) == 1:
        return scored
    if not count:
        return [*scored, "Differences have no interval: no two rows have two seeds in common."]
    return [
        *scored,
        "Differences are paired by seed, each with its own 95 % interval (Student's t).",
        f"The table makes {count} {'comparison' if count == 1 else 'comparisons'} with two seeds "
        f"or more. An asterisk: p < {LEVEL:g} in a paired t-test after Holm's correction for them.",
        power_note(comparison),
    ]


def synthia_notes(comparison: Comparison) -> list[str]:
    """Say the means over SYNTHIA's 16 and 13 classes where the classes are those of Cityscapes."""
    means = {row.name: synthia_by_seed(row) for row in comparison.rows}
    lines = []
    for name in next(iter(means.values())):
        found = (f"{row} {spread(list(m.get(name, {}).values()))}" for row, m in means.items())
        lines.append(
            f"mIoU over SYNTHIA's {name.removeprefix('miou')} classes: {', '.join(found)}."
        )
    return lines


def synthia_by_seed(row: Row) -> dict[str, dict[int, float]]:
    """Means over SYNTHIA's 16 and 13 classes by seed; empty for classes other than Cityscapes'."""
    found: dict[str, dict[int, float]] = {}
    for seed, result in row.results.items():
        for name, value in synthia_means(result).items():
            if not math.isnan(value):
                found.setdefault(name, {})[seed] = value
    return found


def power_note(comparison: Comparison) -> str:
    """Say which difference could have been found with the given seeds."""
    found = comparison.detectable()
    assert found is not None, "there is a comparison with two seeds"
    equal = len({len(d.by_seed) for d in comparison.tested.values()}) == 1
    sentence = (
        f"With {found.seeds} seeds{'' if equal else ' (the fewest of a comparison)'}, a test finds "
        f"a true difference of {found.alone:.2f} points in {100 * POWER:.0f} % of all cases"
    )
    if len(comparison.tested) > 1:
        sentence += f", one of {found.corrected:.2f} at the strictest step of the correction"
    return f"{sentence} (standard deviation of paired differences: {found.std:.2f}, pooled)."


def terminal_table(comparison: Comparison) -> Table:
    """The table for the terminal; `notes` go below it."""
    head, *body = cells(comparison)
    title = "mIoU in percent, mean ± std over seeds; differences with their 95 % interval"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, name in enumerate(head):
        table.add_column(escape(name), justify="right" if place else "left")
    for row in body:
        table.add_row(*map(escape, row))
    return table


def markdown(comparison: Comparison) -> str:
    """The same for a README, with the figure of each seed and of each class."""
    rows = comparison.rows
    head, *body = cells(comparison)
    seeds = sorted({seed for row in rows for seed in row.results})
    single = [[row.name, *(figure(row.miou.get(seed)) for seed in seeds)] for row in rows]
    means = {row.name: class_means(row) for row in rows}
    classes = list(dict.fromkeys(name for found in means.values() for name in found))
    by_class = [[c, *(figure(means[row.name].get(c)) for row in rows)] for c in classes]
    return "\n\n".join(
        [
            "mIoU in percent, mean ± std over seeds. Times are without the start of a process.",
            grid(head, body),
            "\n".join(f"- {note}" for note in notes(comparison)),
            "Each seed:",
            grid(["", *(f"seed {seed}" for seed in seeds)], single),
            "IoU of each class, mean over seeds:",
            grid(["", *(row.name for row in rows)], by_class),
        ]
    )


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Plain values for a JSON file; the bootstrap's intervals are in it as well."""
    detectable = comparison.detectable()
    return {
        "scored_on": comparison.rows[0].scored_on,
        "comparisons": len(comparison.tested),
        "detectable": None if detectable is None else asdict(detectable),
        "rows": {
            row.name: {
                "miou": {str(seed): value for seed, value in row.miou.items()},
                **synthia_by_seed(row),
                "iou": class_means(row),
                "seconds": {str(seed): value for seed, value in row.seconds.items()},
                "differences": {
                    name: difference_record(comparison, comparison.difference(row, name))
                    for name in comparison.against
                    if name != row.name
                },
            }
            for row in comparison.rows
        },
    }


def difference_record(comparison: Comparison, difference: Difference) -> dict[str, Any]:
    """What `table.json` keeps of one difference; null where there are fewer than two seeds."""
    return {
        "by_seed": {str(seed): value for seed, value in difference.by_seed.items()},
        "interval": difference.interval,
        "bootstrap": bootstrap_interval(difference.values),
        "p": t_test(difference.values),
        "p_holm": comparison.adjusted_p(difference),
    }


def class_means(row: Row) -> dict[str, float]:
    """IoU of each class, in percent, the mean over the seeds that have a value."""
    names = dict.fromkeys(name for result in row.results.values() for name in result.iou)
    found = {
        name: [v for r in row.results.values() if (v := r.iou.get(name)) is not None]
        for name in names
    }
    return {name: mean(values) for name, values in found.items() if values}


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation (of a sample: over n - 1)."""
    if len(values) < 2:
        return figure(mean(values))
    return f"{mean(values):.1f} ± {statistics.stdev(values):.1f}"


def signed(value: float) -> str:
    """One decimal and a sign, or a dash."""
    return "-" if math.isnan(value) else f"{round(value, 1) or 0.0:+.1f}"


def ends(interval: Interval | None) -> str:
    """Of an interval, or a dash."""
    return "-" if interval is None else f"[{signed(interval[0])}, {signed(interval[1])}]"


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, its first column to the left."""
    rule = ["---", *("---:" for _ in head[1:])]
    rows = ([cell.replace("|", "/") for cell in line] for line in (head, rule, *body))
    return "\n".join(f"| {' | '.join(line)} |" for line in rows)
