"""Finished runs on disk, grouped to rows: those that differ in their seed alone are one."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipa.errors import PipaError
from pipa.evaluation.scores import Result

NOT_OF_A_ROW = ("out", "seed", "resume")
"""Options in which the runs of a row differ."""
TEXTS = {"source", "target", "validation", "classes", "format", "on_error"}
"""Options of `data` that are texts."""
SIZES = {"crop", "target_resize"}
"""Options of `data` that are a size in pixels; one number stands for a square."""
UNKNOWN = "unknown images"


@dataclass
class Row:
    """The runs of one setting."""

    name: str
    results: dict[int, Result] = field(default_factory=dict)
    """Scores by seed."""
    seconds: dict[int, float] = field(default_factory=dict)
    """Wall time by seed, where it was recorded."""
    scored_on: str = UNKNOWN
    """The images that gave the scores, and their size."""
    folders: dict[int, Path] = field(default_factory=dict)
    """The runs by seed."""

    @property
    def miou(self) -> dict[int, float]:
        """Mean IoU in percent, by seed; without those that have none."""
        return {s: r.miou for s, r in self.results.items() if not math.isnan(r.miou)}

    def add(self, run: Path) -> None:
        """Add a finished run.

        Raises:
            PipaError: It is not a finished run with scores, or the second one with its seed.
        """
        seed, result, seconds = read_run(run)
        images = images_of(run)
        if images != UNKNOWN:
            self.scored_on = images
        if seed in self.results:
            problem = f"is a second run of {self.name} with seed {seed}"
            raise PipaError(problem, run, "Leave one of them out.")
        self.results[seed] = result
        self.folders[seed] = run
        if seconds is not None:
            self.seconds[seed] = seconds


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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipaError("holds no scores of a run", file, remedy) from error


def find_rows(folders: Sequence[Path]) -> list[Row]:
    """Group finished runs by their options.

    Args:
        folders: Runs, or folders of runs at any depth (an ablation's).

    Raises:
        PipaError: A folder holds no finished run, or two runs differ in nothing.
    """
    return [row_of(name, runs) for name, runs in find_groups(folders).items()]


def row_of(name: str, runs: Sequence[Path]) -> Row:
    """The row of finished runs that differ in their seed alone.

    Raises:
        PipaError: One of them has no scores, or two have the same seed.
    """
    row = Row(name)
    for run in runs:
        row.add(run)
    return row


def find_groups(folders: Sequence[Path], *, unfinished: bool = False) -> dict[str, list[Path]]:
    """Group runs by their options, and name the groups.

    Args:
        folders: Runs, or folders of runs at any depth.
        unfinished: Whether to take up runs that have not ended.

    Raises:
        PipaError: A folder holds no run.
    """
    groups: dict[str, tuple[str, list[Path]]] = {}
    for run in (run for folder in folders for run in runs_below(folder, unfinished=unfinished)):
        options = read_options(run / "config.yaml")
        kept = {name: value for name, value in options.items() if name not in NOT_OF_A_ROW}
        # Of a run without options nothing is known but its folder.
        key = json.dumps(kept, sort_keys=True, default=str) if options else str(run)
        taken = {name for name, _ in groups.values()}
        groups.setdefault(key, (row_name(run, taken), []))[1].append(run)
    return dict(groups.values())


def runs_below(folder: Path, *, unfinished: bool = False) -> list[Path]:
    """Runs in a folder: itself, or what lies in it.

    Raises:
        PipaError: There is none.
    """
    files = ("results.json", "metrics.csv") if unfinished else ("results.json",)
    found = sorted({file.parent for name in files for file in folder.rglob(name)})
    found = [run for run in found if is_run(run)]
    if not found:
        kind, remedy = "finished run (results.json)", "that ended, with --data.validation"
        if unfinished:
            kind, remedy = "run", "that `pipa train` wrote"
        raise PipaError(f"holds no {kind}", folder, f"Give folders of runs {remedy}.")
    return [folder] if folder in found else found


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, and not one above (a demo's, an ablation's row)."""
    if (folder / "metrics.csv").is_file():
        return True
    return (folder / "config.yaml").is_file() and (folder / "results.json").is_file()


def read_options(file: Path) -> dict[str, Any]:
    """Read all options of a run from its `config.yaml`; empty where the file holds none."""
    try:
        config: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def run_data(run: Path) -> Mapping[str, Any]:
    """Return the `data` section of a run, without options that are null; empty if there is none.

    Raises:
        PipaError: An option that says where the images are or how large is not of its kind.
    """
    file = run / "config.yaml"
    data = read_options(file).get("data")
    found = {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else {}
    for name in TEXTS & found.keys():
        if not isinstance(found[name], str):
            raise PipaError(f"data.{name} is {found[name]}, expected a text", file)
    for name in SIZES & found.keys():
        value = found[name]
        sides = value if isinstance(value, list) and len(value) == 2 else [value]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise PipaError(f"data.{name} is {value}, expected [HEIGHT, WIDTH]", file)
    return found


@contextmanager
def reading_data_of(run: Path) -> Iterator[None]:
    """Where a relative path of a run's data is not found from here, say what it is relative to.

    Raises:
        PipaError: That of the block, with another remedy if that is the reason.
    """
    try:
        yield
    except PipaError as error:
        specs = [str(run_data(run).get(role) or "/") for role in ("source", "target", "validation")]
        data, where = {Path(spec.rpartition(":")[2]) for spec in specs}, Path(str(error.where))
        folder = started_in(run)
        here = bool(folder) and Path(folder) == Path.cwd()
        if here or where.is_absolute() or where.exists():
            raise
        if data.isdisjoint((where, *where.parents)):
            raise
        remedy = (
            f"Paths of {run} are relative to the folder where its training was started"
            f"{f', {folder}' if folder else ''}: call pipa there."
        )
        raise PipaError(error.problem, error.where, remedy) from error


def started_in(run: Path) -> str:
    """Return the folder in which a finished run was trained; empty if that is not known."""
    try:
        return str(json.loads((run / "results.json").read_text(encoding="utf-8"))["started_in"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def flat(options: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested options to a dictionary of dotted names."""
    if not isinstance(options, dict):
        return {prefix: options}
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def comma_separated(text: str) -> list[str]:
    """Return the words between the commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def images_of(run: Path) -> str:
    """Say on which images, and at which size, a finished run was scored."""
    try:
        stored = json.loads((run / "results.json").read_text(encoding="utf-8"))
        return str(stored["scored_on"])
    except (OSError, ValueError, KeyError, TypeError):
        return scored_on(read_options(run / "config.yaml"))


def scored_on(options: Mapping[str, Any]) -> str:
    """Say on which images, and at which size, a run with these options is scored.

    Args:
        options: The content of a `config.yaml`.
    """
    data, trainer = options.get("data"), options.get("trainer")
    if not isinstance(data, dict) or not data.get("validation"):
        return UNKNOWN
    images, kind = str(data["validation"]), data.get("format", "folder")
    if ":" not in images and kind != "folder":
        images = f"{kind}:{images}"
    if data.get("target_resize"):  # its sides count in either order
        images += f", scaled to {'x'.join(map(str, sorted(data['target_resize'])))}"
    return images + share_of_images(trainer if isinstance(trainer, dict) else {})


def share_of_images(trainer: Mapping[str, Any]) -> str:
    """Say which part of the validation images is scored; empty for all."""
    limit = trainer.get("limit_val_batches")
    if isinstance(limit, float) and limit <= 1:
        return "" if limit == 1 else f", the first {100 * limit:g} %"
    return "" if limit is None else f", the first {limit:g}"


def refuse_other_images(scored: Mapping[str, str]) -> None:
    """Check that rows were scored on the same images at the same size.

    Args:
        scored: By the name of each row, what `scored_on` says of it.

    Raises:
        PipaError: Two rows differ.
    """
    first, *others = scored.items()
    for name, images in others:
        if images != first[1]:
            raise PipaError(
                f"is scored on {images}, but row {first[0]} on {first[1]}",
                f"row {name}",
                "Compare only rows that are scored on the same images at the same size.",
            )


def row_name(run: Path, taken: set[str]) -> str:
    """The run's folder without its seed, or the one above where that is all there is."""
    name = re.sub(r"(^|[-_])s(eed)?\d+$", "", run.name) or run.parent.name
    return name if name and name not in taken else str(run)
