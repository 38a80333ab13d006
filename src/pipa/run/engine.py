"""Lightning's trainer for a run: loggers, callbacks, processes, and its hidden warnings."""

import csv
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from pipa.data.module import UDAData
from pipa.errors import PipaError, first_line
from pipa.models.checkpoint import read_checkpoint
from pipa.run.checkpoints import DurableCheckpoints, RunCheckpoints
from pipa.run.devices import AveragedByMethod, training_device, uses_several
from pipa.run.speed import keep_freed_memory
from pipa.uda.watch import FiniteGuard, LearningRate, Pictures, Progress, PseudoLabels, Throughput


def earlier_metrics(out: Path, last: Path | None) -> list[dict[str, str]]:
    """Read `metrics.csv` up to the checkpoint, since Lightning's logger starts the file anew."""
    file = out / "metrics.csv"
    if last is None or not file.is_file():
        return []
    reached = read_checkpoint(last)["global_step"]
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(lines)]
        return [row for row in rows if int(row.get("step", reached)) < reached]
    except (OSError, ValueError, csv.Error) as error:
        raise PipaError(f"cannot be read ({error})", file, "Move it away.") from error


def build_trainer(
    out: Path,
    data: UDAData,
    options: Mapping[str, Any],
    callbacks: Sequence[Callback],
    earlier: Sequence[Mapping[str, str]] = (),
    *,
    judged: bool = False,
    events: Path | None = None,
) -> L.Trainer:
    """Build Lightning's trainer, with our loggers and callbacks.

    Args:
        out: The run's folder.
        data: The data.
        options: The trainer's own arguments.
        callbacks: Further callbacks.
        earlier: Rows of `metrics.csv` of a resumed run.
        judged: Whether a callback judges the student without labels.
        events: Another path of `out`, for TensorBoard, which takes UTF-8 only.

    Raises:
        MisconfigurationException: Lightning refuses an option; see `in_one_line`.
    """
    table = CSVLogger(out, name=None, version="")
    for row in earlier:
        table.experiment.log_metrics(row, int(row["step"]))
    table.save()
    given = dict(options)
    if uses_several(given) and given.get("strategy", "auto") in ("auto", "ddp"):
        given["strategy"] = AveragedByMethod()
    if training_device(given) == "cpu":
        keep_freed_memory()
    if training_device(given) == "cuda" and torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32, for what autocast leaves in float32
        if given.get("precision") is None and torch.cuda.is_bf16_supported(
            including_emulation=False
        ):
            given["precision"] = "bf16-mixed"
    every = validation_interval(given)
    for own in ("val_check_interval", "patience"):
        given.pop(own, None)
    further = further_loggers(out, given.pop("logger", None))
    others = given.pop("plugins", None) or []
    others = others if isinstance(others, list) else [others]
    ours: dict[str, Any] = {
        "val_check_interval": every,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "plugins": [*others, DurableCheckpoints()],
        "logger": [
            TensorBoardLogger(events or out, name=None, version="tensorboard"),
            table,
            *further,
        ],
        "callbacks": [
            *([Progress(refresh_rate=10)] if given.get("enable_progress_bar") is not False else []),
            Throughput(),
            LearningRate(),
            FiniteGuard(),
            PseudoLabels(data.labels.names),
            Pictures(data.labels.colours, every=every),
            RunCheckpoints(
                out / "checkpoints",
                filename="step{step}",
                auto_insert_metric_name=False,
                every_n_train_steps=every,
                save_last=True,
                save_top_k=1,
                enable_version_counter=False,
            ),
            *best_checkpoint(out, data, every, judged=judged),
            *callbacks,
        ],
    }
    try:
        return L.Trainer(**given, **ours)
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise MisconfigurationException(first_line(error)) from error  # as other options do


def further_loggers(out: Path, name: str | None) -> list[Logger]:
    """Build Lightning's logger for a service, beside those that write into the run's folder.

    Args:
        out: The run's folder, whose name is that of the run.
        name: "wandb" or "mlflow"; None: no further logger. MLflow writes to the address in
            `MLFLOW_TRACKING_URI`, or to `mlflow.db` beside the run.

    Raises:
        PipaError: The package is not installed, or the service refuses.
    """
    if name is None:
        return []
    local = f"sqlite:///{out.parent.resolve() / 'mlflow.db'}"
    try:
        if name == "wandb":
            return [WandbLogger(name=out.name, save_dir=out, project="pipa")]
        address = os.environ.get("MLFLOW_TRACKING_URI") or local
        return [MLFlowLogger("pipa", run_name=out.name, tracking_uri=address)]
    except ModuleNotFoundError as error:
        remedy = f"`pip install {name}` brings it."
        raise PipaError(f"needs the package {name}", "--trainer.logger", remedy) from error


def validation_interval(options: Mapping[str, Any]) -> int:
    """Return the number of steps from one validation to the next; default: a tenth of the run."""
    steps = int(options["max_steps"])
    return min(int(options.get("val_check_interval") or max(1, steps // 10)), steps)


def best_checkpoint(out: Path, data: UDAData, every: int, *, judged: bool) -> list[Callback]:
    """Keep `best.ckpt`, by mIoU if there is validation data, else by the judge's score."""
    how: dict[str, Any] = {"monitor": "miou", "save_on_train_epoch_end": False}
    if data.validation is None:
        how = {"monitor": "judge/score", "every_n_train_steps": every}
    if data.validation is None and not judged:
        return []
    return [
        RunCheckpoints(out / "checkpoints", "best", mode="max", enable_version_counter=False, **how)
    ]


def hush_lightning() -> None:
    """Hide advertisements, and advice that does not apply to runs without epochs."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*LeafSpec.*is deprecated.*",
        ".*exists and is not empty.*",
        ".*in eval mode at the start of training.*",  # the teacher, on purpose
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*manual optimization and every_n_train_steps.*",  # after the update is what we want
    ):
        warnings.filterwarnings("ignore", text)
