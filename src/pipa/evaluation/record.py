"""What the folder of a run holds, whether the run has ended or not."""

import copy
import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from pipa.errors import PipaError
from pipa.evaluation.runs import is_run, read_options, scored_on
from pipa.evaluation.scores import Result
from pipa.models.checkpoint import checkpoints_of, read_checkpoint
from pipa.models.saved import SOURCE_ONLY_FOLDER, adapted_folder, holds_network, load_segmenter
from pipa.models.segmenter import Segmenter


@dataclass(frozen=True)
class RunRecord:
    """One run, as its files describe it."""

    folder: Path
    options: Mapping[str, Any]
    """The content of `config.yaml`; empty if there is none."""
    stored: Mapping[str, Any]
    """The content of `results.json`; empty if the run has not ended."""
    series: Mapping[str, list[tuple[float, float]]]
    """The columns of `metrics.csv`: steps and values."""

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.stored.get("seed", self.options.get("seed", 0)))

    @property
    def finished(self) -> bool:
        """Whether the run has ended."""
        return bool(self.stored)

    @property
    def scored_on(self) -> str:
        """The images that gave the scores, and their size."""
        return str(self.stored.get("scored_on") or scored_on(self.options))

    @property
    def data(self) -> Mapping[str, Any]:
        """The options of the data."""
        found = self.options.get("data")
        return found if isinstance(found, dict) else {}

    @property
    def steps(self) -> int:
        """The number of steps that were logged."""
        return int(max((line[-1][0] for line in self.series.values() if line), default=-1)) + 1

    @property
    def start(self) -> int:
        """The first step with a target."""
        method = self.options.get("method")
        return int(method.get("start") or 0) if isinstance(method, dict) else 0

    @property
    def result(self) -> Result | None:
        """Scores of the final student; None if there are none."""
        return Result.from_dict(self.stored) if "miou" in self.stored else None

    @property
    def source_only(self) -> Result | None:
        """Scores of the student before it saw the target; None if there are none."""
        found = self.stored.get("source_only")
        return Result.from_dict(found) if found else None

    @property
    def judgement(self) -> Mapping[str, Any]:
        """The judgement without labels; empty if there is none."""
        found = self.stored.get("judgement")
        return found if isinstance(found, dict) else {}

    def confusion(self) -> tuple[list[str], Int[np.ndarray, "k k"]] | None:
        """Names of the classes, and pixels by label and prediction; None if there are none."""
        try:
            with (self.folder / "confusion.csv").open(newline="", encoding="utf-8") as file:
                head, *rows = csv.reader(file)
            counts = np.array([[int(cell) for cell in row[1:]] for row in rows])
            return (head[1:], counts) if counts.shape == (len(head) - 1,) * 2 else None
        except (OSError, ValueError, csv.Error):
            return None

    def models(self) -> dict[str, Segmenter]:
        """Load "before", the source-only model, and "after", the adapted one, as far as they exist.

        Of an unfinished run they are those of its newest checkpoint.
        """
        found = {}
        places = {"after": adapted_folder(self.folder), "before": self.folder / SOURCE_ONLY_FOLDER}
        for name, place in places.items():
            if holds_network(place):
                with suppress(PipaError):  # it is damaged
                    found[name] = load_segmenter(place)
        return found or self._models_of_checkpoint()

    def _models_of_checkpoint(self) -> dict[str, Segmenter]:
        for file in checkpoints_of(self.folder):
            with suppress(PipaError):  # it is damaged
                found = {"after": load_segmenter(file)}
                judge = read_checkpoint(file).get("callbacks", {}).get("Judge", {})
                if judge.get("source_only") is not None:
                    before = copy.deepcopy(found["after"])
                    before.load_state_dict(judge["source_only"])
                    found["before"] = before
                return found
        return {}


def read_record(folder: Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        PipaError: It holds no run, or its `metrics.csv` or `results.json` is damaged.
    """
    if not is_run(folder):
        raise PipaError("is not the folder of a run", folder, "Give one that `pipa train` wrote.")
    return RunRecord(
        folder,
        read_options(folder / "config.yaml"),
        _read_stored(folder / "results.json"),
        _read_series(folder / "metrics.csv"),
    )


def _read_stored(file: Path) -> Mapping[str, Any]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PipaError(f"cannot be read ({error})", file) from error
    return stored if isinstance(stored, dict) else {}


def _read_series(file: Path) -> dict[str, list[tuple[float, float]]]:
    """The columns of a table; a later row of the same step replaces the earlier one."""
    series: dict[str, dict[float, float]] = defaultdict(dict)
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                step = row.pop("step", None)
                row.pop("epoch", None)
                for name, value in row.items():
                    if step and value:
                        series[name][float(step)] = float(value)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise PipaError(f"cannot be read ({error})", file) from error
    return {name: sorted(values.items()) for name, values in series.items()}
