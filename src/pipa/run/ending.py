"""The end of a run: its scores, its models and its report, in its folder."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.evaluation.report import write_report
from pipa.evaluation.scores import Result
from pipa.files.writing import write_text
from pipa.models.saved import ADAPTED_FOLDER, KEPT_FOLDER, SOURCE_ONLY_FOLDER, save_segmenter
from pipa.models.segmenter import Segmenter
from pipa.run.devices import environment
from pipa.run.judging import Conclusion, Judge
from pipa.uda.method import Method
from pipa.uda.watch import refuse_non_finite

log = logging.getLogger("pipa")


@dataclass
class Run:
    """The result of a finished run."""

    folder: Path
    model: Segmenter
    """The model that was kept: the student, or the source-only model if that is better."""
    labels: LabelSpace
    result: Result | None
    """Scores of the final student on the validation data, if there is any."""
    verdict: str = ""
    """Whether adaptation helped and which model is kept, in plain words; empty if not judged."""
    is_first: bool = True
    """Whether this is the process, of several, that reports and writes."""


def write_run(
    out: Path,
    module: Method,
    result: Result | None,
    seconds: float | None,
    judging: Judge | None,
    before: Result | None = None,
    device: torch.device | str = "cpu",
) -> Run:
    """Judge on the device; write the model and the scores; the checkpoints exist already."""
    kept = module.student
    refuse_non_finite(kept)
    record: dict[str, Any] = {"environment": environment(), "seed": module.seed}
    record["started_in"] = os.getcwd()  # relative paths of the data are relative to it
    record["seconds"] = None if seconds is None else round(seconds, 1)
    if result is not None:
        record |= result.as_dict()
        result.write_confusion(out / "confusion.csv")
    if before is not None:
        record["source_only"] = before.as_dict()
    verdict = ""
    source_only = None if judging is None else judging.source_only_model(module.student)
    if judging is not None and source_only is not None:
        judgement, found = judging.conclude(module.student, source_only, device)
        conclusion = Conclusion(found, result, before)
        verdict = str(conclusion)
        record["judgement"] = {
            "outcome": found.outcome,
            "kept": "adapted" if conclusion.keeps_adapted else "source_only",
            "words": verdict,
            "figures": judgement.as_dict(),
        }
        save_segmenter(source_only, out / SOURCE_ONLY_FOLDER, module.labels)
        if not conclusion.keeps_adapted:
            kept = source_only
            save_segmenter(module.student, out / ADAPTED_FOLDER, module.labels)
        else:  # an earlier end of this run may have kept the other one
            shutil.rmtree(out / ADAPTED_FOLDER, ignore_errors=True)
    save_segmenter(kept, out / KEPT_FOLDER, module.labels)
    write_text(out / "results.json", json.dumps(record, indent=1))
    return Run(out, kept, module.labels, result, verdict)


def write_report_if_possible(
    runs: Mapping[str, Sequence[Path]] | Sequence[Path], out: Path, **texts: Any
) -> None:
    """Write the report of runs; if that is not possible the runs are still runs.

    A network that could be trained may still not fit into memory with a whole image.

    Args:
        runs: As in `write_report`.
        out: The folder to write `report.html` to.
        **texts: `title`, `about`, `against` of `write_report`; `report.json` keeps them for the
            next report on this folder.
    """
    try:
        if texts:
            write_text(out / "report.json", json.dumps(texts, indent=1))
        write_report(runs, out / "report.html", **texts)
    except (PipaError, RuntimeError, MemoryError, ValueError) as error:
        log.warning("%s has no report: %s", out, " ".join(str(error).split()))
