"""`pipa ablate`: one experiment, some options varied, several seeds; and the table of all runs.

`OUT/ROW/config.yaml` holds all options of a row, `OUT/ROW/seedN` is a run like any other, beside
the log of its process. What is finished stays: the same command goes on where it stopped, and more
rows or seeds add to what is there.
"""

import itertools
import json
import os
import queue
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from pipa.data.threads import available_cores
from pipa.errors import PipaError
from pipa.evaluate.compare import Comparison, Row, compare, read_run
from pipa.evaluate.scores import write_whole
from pipa.experiment import add_sections, refuse_impossible, spelled_out

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

OURS = ("vary", "rows", "seeds", "jobs", "against", "out", "seed", "resume", "config")
"""Options that say which runs there are, not what one of them does."""
UNDECIDED = ("method.pixel", "method.patch")
"""Switches whose default depends on the method."""


@dataclass(frozen=True)
class Setting:
    """A row to be: its name, and all of its options as the text of an experiment file."""

    name: str
    text: str

    @property
    def folder(self) -> str:
        """The name, as one of a folder."""
        return re.sub(r"[^\w.+=-]+", "_", self.name)


@dataclass(frozen=True)
class Grid:
    """What `pipa ablate` was asked for."""

    settings: list[Setting]
    seeds: list[int]
    out: Path
    jobs: int
    against: list[str]


def read_grid(parser: "ArgumentParser", given: Sequence[str]) -> Grid:
    """Parse `[CONFIG] --vary A,B --seeds 0,1,2 [--SECTION.NAME VALUE]...`; refuse bad rows now.

    Raises:
        PipaError: An option of a row is not one, or there is nothing to score on.
    """
    add_sections(parser)
    about = (
        "switches (method.pixel), or OPTION=VALUE:VALUE, with commas: every combination is a row"
    )
    parser.add_argument("--vary", type=str, default="", help=about)
    parser.add_argument("--rows", type=Path | None, help="YAML: ROW: {OPTION: VALUE, ...}")
    parser.add_argument("--seeds", type=str, default="0,1,2", help="seeds of each row")
    about = "runs at the same time; default: one for each GPU, or one"
    parser.add_argument("--jobs", type=int | None, help=about)
    about = "rows that all are compared with, with commas; default: the first"
    parser.add_argument("--against", type=str, default="", help=about)
    given = spelled_out(list(given))
    base = parser.parse_args(given)
    settings = []
    for name, overrides in combinations(base):
        config = parser.parse_args([*given, *overrides])
        refuse_impossible(config)
        if config.data.validation is None:
            remedy = "Give labelled images of the target's world."
            raise PipaError("an ablation needs images to score on", "--data.validation", remedy)
        for option in OURS:
            config.pop(option, None)
        settings.append(Setting(name, parser.dump(config, skip_validation=True)))
    jobs = base.jobs or max(1, torch.cuda.device_count())
    against = [name.strip() for name in base.against.split(",") if name.strip()]
    unknown = sorted(set(against) - {setting.name for setting in settings})
    if unknown:
        names = ", ".join(setting.name for setting in settings)
        raise PipaError(f"no row is called {', '.join(unknown)}", "--against", f"Rows: {names}.")
    return Grid(settings, whole_numbers(base.seeds), base.out, jobs, against)


def combinations(base: Any) -> list[tuple[str, list[str]]]:
    """Name and further arguments of each row.

    Raises:
        PipaError: `--vary` or the file of rows cannot be understood.
    """
    named: list[tuple[str, list[str]]] = read_rows(base.rows) if base.rows else [("", [])]
    axes = [choices(part.strip(), base) for part in base.vary.split(",") if part.strip()]
    if not axes and not base.rows:
        raise PipaError("nothing varies", "--vary", "Try --vary method.pixel,method.patch")
    rows = []
    for (row, overrides), picked in itertools.product(named, itertools.product(*axes)):
        words = [row, *(word for word, _ in picked)]
        name = "+".join(word for word in words if word) or "none"
        rows.append((name, [*overrides, *(argument for _, argument in picked)]))
    return rows


def choices(part: str, base: Any) -> list[tuple[str, str]]:
    """What one part of `--vary` can be: a word for the row's name, and the argument."""
    option, _, values = part.partition("=")
    if option in OURS or option not in base:
        raise PipaError(
            f"no option is called {option}", "--vary", "`pipa ablate --help` lists all."
        )
    if values:
        short = option.rpartition(".")[2] + "="
        return [(f"{short}{value}", f"--{option}={value}") for value in values.split(":")]
    if not isinstance(base[option], bool) and option not in UNDECIDED:
        raise PipaError(
            f"{option} is no switch", "--vary", f"Say its values: {option}={base[option]}:..."
        )
    return [("", f"--{option}=false"), (option.rpartition(".")[2], f"--{option}=true")]


def read_rows(file: Path) -> list[tuple[str, list[str]]]:
    """Rows of a YAML file, each a mapping of options.

    Raises:
        PipaError: It is none.
    """
    remedy = "Each row is a line NAME: {method.pixel: true, ...}."
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipaError("cannot be read as YAML", file, remedy) from error
    rows: dict[Any, Any] = content if isinstance(content, dict) else {}
    if not rows or not all(isinstance(options, dict) for options in rows.values()):
        raise PipaError("is no mapping of rows", file, remedy)
    return [
        (str(name), [f"--{key}={as_argument(value)}" for key, value in options.items()])
        for name, options in rows.items()
    ]


def as_argument(value: Any) -> str:
    """As one would type it."""
    return value if isinstance(value, str) else json.dumps(value)


def whole_numbers(text: str) -> list[int]:
    """Seeds of `0,1,2`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdigit() for word in words):
        raise PipaError(f"{text!r} are no seeds", "--seeds", "Give whole numbers: --seeds 0,1,2")
    return list(dict.fromkeys(int(word) for word in words))


def ablate(grid: Grid, tell: Callable[[str], None]) -> tuple[Comparison, list[str]]:
    """Do the runs that are not done, and compare all.

    Args:
        grid: Rows, seeds, folder.
        tell: Called with a line whenever a run ends.

    Returns:
        The comparison of what is finished, written to `OUT/table.{md,json,svg}` as well; and a line
        for each run that failed.

    Raises:
        PipaError: The folder holds other runs of these names, or every run failed.
    """
    for setting in grid.settings:
        remember(grid.out / setting.folder / "config.yaml", setting.text)
    # All rows of a seed before the next one: a table can be read early.
    todo = [
        (setting, seed)
        for seed in grid.seeds
        for setting in grid.settings
        if not (place(grid, setting, seed) / "results.json").is_file()
    ]
    faults = run_all(grid, todo, tell)
    rows = [row for setting in grid.settings if (row := gather(grid, setting)).results]
    if not rows:
        raise PipaError("no run was finished", grid.out, " ".join(faults[:1]))
    known = {row.name for row in rows}
    comparison = compare(rows, [name for name in grid.against if name in known])
    comparison.write(grid.out)
    return comparison, faults


def remember(file: Path, text: str) -> None:
    """Keep a row's options; refuse to mix runs of different ones."""
    try:
        found = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        write_whole(file, text)
        return
    except OSError as error:
        raise PipaError(f"cannot be read ({error.strerror})", file) from error
    if found != text:
        mine, theirs = text.splitlines(), found.splitlines()
        changed = sorted({line.strip() for line in set(mine) ^ set(theirs)})
        raise PipaError(
            f"holds runs with other options ({'; '.join(changed[:4])})",
            file.parent,
            "Give another --out.",
        )


def place(grid: Grid, setting: Setting, seed: int) -> Path:
    """The folder of one run."""
    return grid.out / setting.folder / f"seed{seed}"


def gather(grid: Grid, setting: Setting) -> Row:
    """The finished runs of a row."""
    row = Row(setting.name)
    for seed in grid.seeds:
        folder = place(grid, setting, seed)
        if (folder / "results.json").is_file():
            _, row.results[seed], seconds = read_run(folder)
            if seconds is not None:
                row.seconds[seed] = seconds
    return row


def run_all(
    grid: Grid, todo: Sequence[tuple[Setting, int]], tell: Callable[[str], None]
) -> list[str]:
    """Run each in a process of its own, `jobs` at a time, each on a GPU where there are any."""
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(grid.jobs):
        slots.put(slot)

    def work(setting: Setting, seed: int) -> str | None:
        slot = slots.get()
        try:
            return run_one(grid, setting, seed, slot)
        finally:
            slots.put(slot)

    faults = []
    with ThreadPoolExecutor(grid.jobs) as pool:
        pending = {pool.submit(work, *task): task for task in todo}
        try:
            for number, done in enumerate(as_completed(pending), 1):
                setting, seed = pending[done]
                name, fault = f"{setting.name}, seed {seed}", done.result()
                if fault is None:
                    _, result, seconds = read_run(place(grid, setting, seed))
                    spent = "" if seconds is None else f" in {seconds:.0f} s"
                    tell(f"[{number}/{len(todo)}] {name}: mIoU {result.miou:.1f}{spent}")
                else:
                    faults.append(f"{name}: {fault}")
                    tell(f"[{number}/{len(todo)}] {name} FAILED: {fault}")
        finally:
            pool.shutdown(cancel_futures=True)
    return faults


def run_one(grid: Grid, setting: Setting, seed: int, slot: int) -> str | None:
    """`pipa train` of one row and seed; the last line of its log if it fails."""
    folder = place(grid, setting, seed)
    log = folder.with_suffix(".log")
    command = [sys.executable, "-m", "pipa", "train", str(folder.parent / "config.yaml")]
    command += [f"--seed={seed}", f"--out={folder}", "--trainer.enable_progress_bar=false"]
    if (folder / "checkpoints" / "last.ckpt").is_file():
        command.append("--resume")
    else:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that got nowhere
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // grid.jobs)))
    gpus = torch.cuda.device_count()
    if gpus > 1:
        environment["CUDA_VISIBLE_DEVICES"] = visible_gpu(slot % gpus)
    with log.open("a", encoding="utf-8") as lines:
        done = subprocess.run(command, stdout=lines, stderr=lines, env=environment, check=False)
    if done.returncode == 0:
        return None
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{said[-1] if said else f'exit code {done.returncode}'} (see {log})"


def visible_gpu(index: int) -> str:
    """What CUDA_VISIBLE_DEVICES says of the n-th GPU that this process sees."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return allowed.split(",")[index] if allowed else str(index)


def find_rows(folders: Sequence[Path]) -> list[Row]:
    """Group finished runs: those that differ in their seed alone are one row.

    Args:
        folders: Runs, or folders of runs at any depth (an ablation's).

    Raises:
        PipaError: A folder holds no finished run.
    """
    rows: dict[str, Row] = {}
    names: set[str] = set()
    for run in (run for folder in folders for run in runs_below(folder)):
        seed, result, seconds = read_run(run)
        options = options_of(run)
        if options not in rows:
            rows[options] = Row(row_name(run, names))
            names.add(rows[options].name)
        if seed in rows[options].results:
            raise PipaError(f"is a second run of {rows[options].name} with seed {seed}", run)
        rows[options].results[seed] = result
        if seconds is not None:
            rows[options].seconds[seed] = seconds
    return list(rows.values())


def runs_below(folder: Path) -> list[Path]:
    """Finished runs in a folder: itself, or what lies in it."""
    found = sorted(file.parent for file in folder.rglob("results.json"))
    if not found:
        remedy = "Give folders of runs that ended, with --data.validation."
        raise PipaError("holds no finished run (results.json)", folder, remedy)
    return [folder] if folder in found else found


def options_of(run: Path) -> str:
    """All options of a run but its seed and folder; its folder where they were not kept."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return str(run)
    return json.dumps({k: v for k, v in config.items() if k not in OURS}, sort_keys=True)


def row_name(run: Path, taken: set[str]) -> str:
    """The run's folder without its seed, or the one above where that is all there is."""
    name = re.sub(r"[-_]?s(eed)?\d+$", "", run.name) or run.parent.name
    return name if name and name not in taken else str(run)
