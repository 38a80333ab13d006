"""`pipa ablate`: one experiment, some options varied, several seeds; and the table of all runs.

`OUT/ROW/config.yaml` holds all options of a row, `OUT/ROW/seedN` is a run like any other, beside
the log of its process. What is finished stays: the same command goes on where it stopped, and more
rows or seeds add to what is there.
"""

import contextlib
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from pipa.errors import PipaError
from pipa.evaluation.compare import Comparison, compare
from pipa.evaluation.runs import Row, read_options, refuse_other_images, scored_on
from pipa.evaluation.tables import write_tables
from pipa.files.writing import write_text
from pipa.run.ending import write_report_if_possible
from pipa.run.grid import Grid, Setting
from pipa.run.jobs import run_all
from pipa.run.resuming import differences
from pipa.run.until import Until


def ablate(grid: Grid, tell: Callable[[str], None]) -> tuple[Comparison, list[str]]:
    """Do the runs that are not done, and compare all that are in the folder.

    Args:
        grid: Rows, seeds, folder.
        tell: Called with a line whenever a run ends.

    Returns:
        The comparison of what is finished, written to `OUT/table.{md,json,svg}` and
        `OUT/report.html` as well; and a line for each run that failed.

    Raises:
        PipaError: The folder holds other runs of these names or runs that were scored on other
            images, another process works in it, or every run failed.
    """
    with locked(grid.out) as lock:
        refuse_other_images(
            {row.name: row.scored_on for row in finished_rows(grid)[0]}
            | {s.name: scored_on(yaml.safe_load(s.text)) for s in grid.settings}
        )
        for setting in grid.settings:
            keep_options(grid.out / setting.folder / "config.yaml", setting.text)
        if grid.until is None:
            faults = run_seeds(grid, grid.seeds, tell, lock)
        else:
            faults = run_until(grid, grid.until, tell, lock)
        rows, unreadable = finished_rows(grid)
    faults += unreadable
    if not rows:
        raise PipaError("no run was finished", grid.out, " ".join(faults[:1]))
    known = [row.name for row in rows]
    faults += [
        f"{name}: nothing is compared with it, it has no finished run"
        for name in grid.against
        if name not in known
    ]
    comparison = compare(rows, [name for name in grid.against if name in known])
    write_tables(comparison, grid.out)
    runs, out = {row.name: list(row.folders.values()) for row in rows}, grid.out
    write_report_if_possible(runs, out, title=out.name, against=comparison.against)
    return comparison, faults


def run_seeds(
    grid: Grid, seeds: Sequence[int], tell: Callable[[str], None], lock: int | None
) -> list[str]:
    """Do the runs of some seeds that are not done; a line for each that failed."""
    # All rows of a seed before the next one: a table can be read early.
    todo = [(setting, seed) for seed in seeds for setting in missing(grid, seed)]
    done = len(seeds) * len(grid.settings) - len(todo)
    if done:
        tell(f"{done} of {done + len(todo)} runs are done already")
    return run_all(grid, todo, tell, lock)


def run_until(grid: Grid, until: Until, tell: Callable[[str], None], lock: int | None) -> list[str]:
    """Add seeds until the intervals are narrow enough; a line for each run that failed.

    The list of seeds goes on with the numbers after its highest. Each round has as many seeds as
    keep all jobs busy. Stopping at a small spread makes intervals narrower than they should be:
    docs/results_history.md says by how much.
    """
    seeds = list(grid.seeds)
    later = itertools.count(max(seeds) + 1)
    while len(seeds) < until.most_seeds and (len(seeds) < 2 or not missing(grid, max(seeds) + 1)):
        seeds.append(next(later))  # from a command that was stopped, or the second seed of all
    new, each_round = list(seeds), max(1, grid.jobs // len(grid.settings))
    while True:
        faults = run_seeds(grid, new, tell, lock)
        if faults:
            tell("no further seeds are added, since a run failed")
            return faults
        half_width, said = widest_interval(grid, until.rows)
        tell(f"with {len(seeds)} seeds: {said}; asked for ± {until.half_width:g}")
        if half_width <= until.half_width or len(seeds) >= until.most_seeds:
            return []
        new = list(itertools.islice(later, min(each_round, until.most_seeds - len(seeds))))
        seeds += new


def widest_interval(grid: Grid, of: Sequence[str] = ()) -> tuple[float, str]:
    """Find the difference of the grid's rows whose Student interval is widest.

    Args:
        grid: The grid.
        of: The rows whose differences count; empty: all.

    Returns:
        Half of its width in points, infinite if a difference has fewer than two seeds; and the
        same in words.
    """
    rows = {row.name: row for row in finished_rows(grid)[0]}
    names = [setting.name for setting in grid.settings]
    if any(name not in rows for name in names):
        return math.inf, "not every row has a score"
    comparison = compare([rows[name] for name in names], grid.against)
    widths = {
        f"{d.row} minus {d.reference}": math.inf if ends is None else (ends[1] - ends[0]) / 2
        for d in comparison.differences()
        for ends in [d.interval]
        if not of or d.row in of
    }
    name = max(widths, key=widths.__getitem__)
    if widths[name] == math.inf:
        return math.inf, f"{name} has no interval"
    return widths[name], f"the widest 95 % interval is ± {widths[name]:.2f} points ({name})"


def missing(grid: Grid, seed: int) -> list[Setting]:
    """Return the rows that have no finished run with this seed."""
    return [s for s in grid.settings if not (grid.run_folder(s, seed) / "results.json").is_file()]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Lock a folder against other ablations, until the last run of this one has ended.

    Raises:
        PipaError: Another one is at work, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise PipaError(problem, folder, "Give another --out.") from error
    try:
        if sys.platform == "win32":
            yield None
        else:
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                remedy = "Wait for it, or end its processes."
                raise PipaError("another ablation is at work here", folder, remedy) from error
            yield lock
    finally:
        os.close(lock)


def keep_options(file: Path, text: str) -> None:
    """Write a row's options, once.

    Raises:
        PipaError: The folder's runs have other options, or the file cannot be read.
    """
    if not file.exists():
        write_text(file, text)
        return
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipaError("cannot be read", file, "Give another --out.") from error
    changed = [word for _, word in differences(found, yaml.safe_load(text))]
    if changed:
        problem = f"holds runs with other options ({'; '.join(changed[:4])})"
        raise PipaError(problem, file.parent, "Give another --out.")


def finished_rows(grid: Grid) -> tuple[list[Row], list[str]]:
    """All finished runs of the folder, this grid's rows first; a line for each without scores."""
    names = {setting.folder: setting.name for setting in grid.settings}
    for file in sorted(grid.out.glob("*/config.yaml")):
        title = file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        names.setdefault(file.parent.name, title.removeprefix("# "))
    rows, faults = [], []
    for folder, name in names.items():
        row = Row(name, scored_on=scored_on(read_options(grid.out / folder / "config.yaml")))
        for run in sorted((grid.out / folder).glob("seed*/results.json")):
            try:
                row.add(run.parent)
            except PipaError as error:
                faults.append(str(error))
        if row.results:
            rows.append(row)
    return rows, faults
