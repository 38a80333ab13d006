"""`pipa ablate`: one experiment, some options varied, several seeds; and the table of all runs.

`OUT/ROW/config.yaml` holds all options of a row, `OUT/ROW/seedN` is a run like any other, beside
the log of its process. What is finished stays: the same command goes on where it stopped, and more
rows or seeds add to what is there.
"""

import contextlib
import itertools
import logging
import math
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import yaml

from pipa.errors import PipaError
from pipa.evaluation.compare import Comparison, compare
from pipa.evaluation.runs import Row, read_options, read_run, refuse_other_images, scored_on
from pipa.evaluation.tables import write_tables
from pipa.files.writing import write_text
from pipa.run.checkpoints import has_checkpoint
from pipa.run.devices import share_of_machine
from pipa.run.ending import write_report_if_possible
from pipa.run.grid import Grid, Setting
from pipa.run.interrupt import ending_with
from pipa.run.resuming import differences
from pipa.run.until import Until

log = logging.getLogger("pipa")

Task = tuple[Setting, int]
"""A row and a seed."""


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
    with alone(grid.out) as lock:
        refuse_other_images(
            {row.name: row.scored_on for row in gather(grid)[0]}
            | {s.name: scored_on(yaml.safe_load(s.text)) for s in grid.settings}
        )
        for setting in grid.settings:
            remember(grid.out / setting.folder / "config.yaml", setting.text)
        if grid.until is None:
            faults = run_seeds(grid, grid.seeds, tell, lock)
        else:
            faults = run_until(grid, grid.until, tell, lock)
        rows, unreadable = gather(grid)
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
    rows = {row.name: row for row in gather(grid)[0]}
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
    return [s for s in grid.settings if not (place(grid, s, seed) / "results.json").is_file()]


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int | None]:
    """Keep other ablations out of a folder; the lock is gone when the last run of this one is.

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


def remember(file: Path, text: str) -> None:
    """Keep a row's options; refuse to mix runs of different ones."""
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


def place(grid: Grid, setting: Setting, seed: int) -> Path:
    """The folder of one run."""
    return grid.out / setting.folder / f"seed{seed}"


def gather(grid: Grid) -> tuple[list[Row], list[str]]:
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


def run_all(
    grid: Grid, todo: Sequence[Task], tell: Callable[[str], None], lock: int | None
) -> list[str]:
    """Run each in a process of its own, `jobs` at a time; a line for each that failed."""
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(grid.jobs):
        slots.put(slot)
    trainings: set[subprocess.Popen[bytes]] = set()

    def work(setting: Setting, seed: int) -> str | None:
        slot = slots.get()
        try:
            return run_one(grid, setting, seed, slot, lock, trainings)
        finally:
            slots.put(slot)

    faults = []
    resuming = "interrupted; the same command goes on"
    with ending_with(lambda: [*trainings], resuming), ThreadPoolExecutor(grid.jobs) as pool:
        pending = {pool.submit(work, *task): task for task in todo}
        try:
            for number, done in enumerate(as_completed(pending), 1):
                setting, seed = pending[done]
                name, fault = f"{setting.name}, seed {seed}", done.result()
                said = fault or outcome(place(grid, setting, seed))
                tell(f"[{number}/{len(todo)}] {name}: {said}")
                if fault is not None:
                    faults.append(f"{name}: {fault}")
        finally:
            pool.shutdown(cancel_futures=True)
    return faults


def outcome(run: Path) -> str:
    """A finished run in a few words."""
    try:
        _, result, seconds = read_run(run)
    except PipaError as error:
        return str(error)
    return f"mIoU {result.miou:.1f}" + ("" if seconds is None else f" in {seconds:.0f} s")


def run_one(
    grid: Grid,
    setting: Setting,
    seed: int,
    slot: int,
    lock: int | None,
    trainings: set[subprocess.Popen[bytes]],
) -> str | None:
    """`pipa train` of one row and seed; what its log says last if it fails.

    While it runs it is in `trainings`.
    """
    folder = place(grid, setting, seed)
    command = [sys.executable, "-m", "pipa", "train", str(folder.parent / "config.yaml")]
    command += [f"--seed={seed}", f"--out={folder}", "--trainer.enable_progress_bar=false"]
    if has_checkpoint(folder):
        command.append("--resume")  # a run that got nowhere starts anew, in the same folder
    log = folder.with_suffix(".log")
    with log.open("w", encoding="utf-8") as lines:
        running = subprocess.Popen(
            command,
            stdout=lines,
            stderr=lines,
            env=share_of_machine(grid.jobs, slot),
            pass_fds=() if lock is None else (lock,),
        )
        trainings.add(running)
        code = running.wait()
        trainings.discard(running)
    if code == 0:
        return None
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = said[-1] if said and code > 0 else f"ended with code {code}"
    return f"{last} (see {log})"
