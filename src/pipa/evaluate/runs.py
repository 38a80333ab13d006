"""Finished runs on disk, grouped to rows: those that differ in their seed alone are one."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipa.errors import PipaError
from pipa.evaluate.scores import Result

NOT_OF_A_ROW = ("out", "seed", "resume")
"""Options in which the runs of a row differ."""


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
        """Mean IoU in percent, by seed; without those that have none."""
        return {s: r.miou for s, r in self.results.items() if not math.isnan(r.miou)}

    def add(self, run: Path) -> None:
        """Take up a finished run.

        Raises:
            PipaError: It is none, or the second one with its seed.
        """
        seed, result, seconds = read_run(run)
        if seed in self.results:
            problem = f"is a second run of {self.name} with seed {seed}"
            raise PipaError(problem, run, "Leave one of them out.")
        self.results[seed] = result
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
        PipaError: A folder holds no finished run, or some were scored on other images.
    """
    rows: dict[str, Row] = {}
    scored: dict[str, Path] = {}
    for run in (run for folder in folders for run in runs_below(folder)):
        options = options_of(run)
        scored.setdefault(scored_on(options), run)
        if len(scored) > 1:
            (first, _), (other, place) = scored.items()
            raise PipaError(f"was scored on {other}, others on {first}", place, "Leave it out.")
        if options not in rows:
            taken = {row.name for row in rows.values()}
            rows[options] = Row(row_name(run, taken))
        rows[options].add(run)
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
        config: Any = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        config = None
    if not isinstance(config, dict):
        return str(run)
    kept = {name: value for name, value in config.items() if name not in NOT_OF_A_ROW}
    return json.dumps(kept, sort_keys=True, default=str)


def scored_on(options: str) -> str:
    """The validation images of such options, as far as they are known."""
    try:
        data = json.loads(options)["data"]
        return str(data["validation"])
    except (ValueError, KeyError, TypeError):
        return "unknown images"


def row_name(run: Path, taken: set[str]) -> str:
    """The run's folder without its seed, or the one above where that is all there is."""
    name = re.sub(r"(^|[-_])s(eed)?\d+$", "", run.name) or run.parent.name
    return name if name and name not in taken else str(run)
