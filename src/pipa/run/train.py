"""One run: from the sections of an experiment file to a trained segmenter on disk.

A run's folder holds `config.yaml`, `metrics.csv`, TensorBoard events, `checkpoints/last.ckpt`,
`model/` (what `pipa predict` and `pipa eval` take) and `results.json`.
"""

import contextlib
import copy
import csv
import json
import logging
import os
import platform
import re
import subprocess
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from pipa.classes import LabelSpace
from pipa.data.module import UDAData
from pipa.errors import PipaError
from pipa.evaluate.scores import Result
from pipa.files.writing import write_text
from pipa.models.build import create_segmenter
from pipa.models.checkpoint import check_names, read_checkpoint
from pipa.models.saved import save_segmenter
from pipa.models.segmenter import Segmenter
from pipa.run.recipes import Losses, MethodOptions, build_method
from pipa.uda.method import Method
from pipa.uda.optim import Optim
from pipa.uda.watch import FiniteGuard, Pictures, Progress, Throughput

log = logging.getLogger("pipa")

PACKAGES = ("pipa", "torch", "lightning", "transformers", "kornia")


@dataclass
class StudentOptions:
    """The `student:` section: which network.

    Args:
        name: HEAD_BACKBONE: daformer, hrda, segformer, deeplabv2 or fpn; then mit_b0 ... b5,
            resnet_50, resnet_101, mobilenet_v2, small, or auto: what `pretrained` names. "small"
            alone is fpn_small.
        pretrained: Weights of the backbone: a name on the Hugging Face hub (nvidia/mit-b5), a local
            folder, or "none": random. "auto": ImageNet's for MiT and ResNet, none for others.
        options: Further arguments of `pipa.create_segmenter`, such as `backbone: {frozen: true}`.
    """

    name: str = "daformer_mit_b5"
    pretrained: str = "auto"
    options: dict[str, Any] | None = None

    @property
    def weights(self) -> str | None:
        """What `create_segmenter` takes as `pretrained`."""
        if self.pretrained != "auto":
            return None if self.pretrained == "none" else self.pretrained
        known = re.search(r"_(mit|resnet)_(\w+)$", self.name)
        if known is None:
            return None
        return {"mit": "nvidia/mit-", "resnet": "microsoft/resnet-"}[known[1]] + known[2]


@dataclass
class Run:
    """What a finished run gives back."""

    out: Path
    student: Segmenter
    labels: LabelSpace
    result: Result | None
    """Scores on the validation data, where there is any."""


def train(
    out: Path,
    *,
    data: UDAData,
    student: StudentOptions,
    method: MethodOptions,
    losses: Losses,
    optim: Optim,
    trainer: Mapping[str, Any],
    seed: int = 0,
    resume: bool = False,
    config: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train, validate, and write the run's folder.

    Args:
        out: The run's folder; made, or gone on with when `resume`.
        data: What to train on.
        student: Which network.
        method: Which losses.
        losses: The terms that `method` switches on.
        optim: Learning rate, schedule, clipping.
        trainer: Arguments of Lightning's trainer; `max_steps` is needed.
        seed: Decides the first weights and every draw of the method; `data` have a seed, too.
        resume: Go on from the folder's last checkpoint.
        config: Text of the experiment file, to be kept in the folder.
        callbacks: More of Lightning's callbacks.

    Raises:
        PipaError: The folder holds another run or cannot be written, or the data are bad.
    """
    since = time.perf_counter()
    refuse_targetless(data, method, trainer["max_steps"])
    last = prepare_folder(out, resume, trainer["max_steps"])
    warn_of_idle(trainer["max_steps"], optim, method, losses)
    data = copy.copy(data)  # the caller's stays as it is
    if not method.likes_rare_classes:
        data.temperature = None
    if not method.sees_pairs:
        data.pair_cutting = None
    elif data.pair_cutting is None:
        data.pair_cutting = data.usual_pair
    try:
        data.setup("fit")
        L.seed_everything(seed, verbose=False)
        network = create_segmenter(
            student.name,
            data.labels.num_classes,
            pretrained=student.weights,
            **(student.options or {}),
        )
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster convolutions
        module = build_method(
            method,
            network,
            data.labels,
            losses,
            optim=optim,
            pretrained=student.weights is not None,
            seed=seed,
        )
        if last is not None:
            check_names(module.state_dict(), read_checkpoint(last)["state_dict"], last)
    except PipaError:
        with contextlib.suppress(OSError):
            out.rmdir()  # only if it is empty: nothing half-made stays behind
        raise
    if config is not None:
        write_text(out / "config.yaml", config)
    with warnings.catch_warnings():
        hush_lightning()
        engine = build_trainer(out, data, trainer, callbacks, earlier_metrics(out, last))
        engine.fit(module, datamodule=data, ckpt_path=last)
        engine.save_checkpoint(out / "checkpoints" / "last.ckpt")  # the end, whatever the interval
        result = validate(engine, module, data)
    if engine.is_global_zero:
        # Of a run that was resumed, this process knows the end only.
        write_run(out, module, result, None if resume else time.perf_counter() - since)
    return Run(out, network, data.labels, result)


def warn_of_idle(steps: int, optim: Optim, method: MethodOptions, losses: Losses) -> None:
    """Say what these few steps never reach."""
    idle = {"optim.warm_up": optim.warm_up}
    for name, is_on in (
        ("pixel", method.pixel),
        ("patch", method.patch),
        ("masked", method.masked),
    ):
        if is_on:
            idle[f"{name}.start"] = getattr(losses, name).start
    for name, first in idle.items():
        if first >= steps:
            log.warning("--%s is %d, and the run has %d steps only", name, first, steps)


def refuse_targetless(data: UDAData, method: MethodOptions, steps: int) -> None:
    """Check that a method that looks at a target has one, and the time to.

    Raises:
        PipaError: It has not.
    """
    if not method.sees_target:
        return
    if data.target is None:
        raise PipaError(
            f"{method.name.replace('_', '-')} needs target images",
            "--data.target",
            "Give a folder of images, or --method.name source_only.",
        )
    if method.start >= steps:
        raise PipaError(
            f"is {method.start}: with {steps} steps the target is never looked at",
            "--method.start",
            "Lower it (and --patch.start), or train for longer.",
        )


def prepare_folder(out: Path, resume: bool, steps: int) -> Path | None:
    """Make the run's folder; the checkpoint to go on from, where one is asked for."""
    last = out / "checkpoints" / "last.ckpt"
    if resume and not last.is_file():
        raise PipaError("no checkpoint to resume from", last, "Train without --resume first.")
    if resume and (out / "results.json").is_file():
        reached = read_checkpoint(last)["global_step"]
        if reached >= steps:
            raise PipaError(f"has {reached} steps already", out, "Give more: --trainer.max_steps.")
    if not resume and (out / "checkpoints").exists():
        raise PipaError(
            "holds a run already", out, "Give --resume to go on with it, or another --out."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipaError(f"cannot be made ({error.strerror})", out, "Give another --out.") from None
    if not os.access(out, os.W_OK):
        raise PipaError("is not writable", out, "Give another --out.")
    return last if resume else None


def earlier_metrics(out: Path, last: Path | None) -> list[dict[str, str]]:
    """Rows of `metrics.csv` up to the checkpoint: Lightning's logger starts the file anew."""
    file = out / "metrics.csv"
    if last is None or not file.is_file():
        return []
    reached = read_checkpoint(last)["global_step"]
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(lines)]
    return [row for row in rows if int(row.get("step", reached)) < reached]


def build_trainer(
    out: Path,
    data: UDAData,
    options: Mapping[str, Any],
    callbacks: Sequence[Callback],
    earlier: Sequence[Mapping[str, str]] = (),
) -> L.Trainer:
    """Lightning's trainer, with our loggers and callbacks; `options` are its own arguments."""
    table = CSVLogger(out, name=None, version="")
    for row in earlier:
        table.experiment.log_metrics(row, int(row["step"]))
    table.save()
    given = dict(options)
    if uses_several(given) and given.get("strategy", "auto") == "auto":
        # Terms that start late leave projection heads without a gradient.
        given["strategy"] = "ddp_find_unused_parameters_true"
    every = given.pop("val_check_interval", None) or max(1, given["max_steps"] // 10)
    return L.Trainer(
        **given,
        val_check_interval=min(int(every), given["max_steps"]),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=[
            TensorBoardLogger(out, name=None, version="tensorboard"),
            table,
        ],
        callbacks=[
            *([Progress(refresh_rate=10)] if given.get("enable_progress_bar") is not False else []),
            Throughput(),
            FiniteGuard(),
            Pictures(data.labels.colours, every=int(every)),
            ModelCheckpoint(
                out / "checkpoints",
                filename="step{step}",
                auto_insert_metric_name=False,
                every_n_train_steps=int(every),
                save_last=True,
                save_top_k=1,
                enable_version_counter=False,
            ),
            *callbacks,
        ],
    )


def uses_several(options: Mapping[str, Any]) -> bool:
    """Whether Lightning's trainer will train in several processes; the command line gives words."""
    devices = options.get("devices") or "auto"
    if options.get("num_nodes", 1) > 1:
        return True
    if str(devices) in ("auto", "-1"):
        return options.get("accelerator", "auto") != "cpu" and torch.cuda.device_count() > 1
    if str(devices).isdigit():
        return int(devices) > 1
    listed = devices.split(",") if isinstance(devices, str) else devices
    return sum(str(device).strip() != "" for device in listed) > 1


def validate(engine: L.Trainer, module: Method, data: UDAData) -> Result | None:
    """Scores of the finished student on the whole validation set."""
    if data.validation is None:
        return None
    if module.scored_at == engine.global_step and engine.limit_val_batches == 1.0:
        return module.result  # the last step of training has just done so
    engine.validate(module, datamodule=data, verbose=False)
    return module.result


def write_run(out: Path, module: Method, result: Result | None, seconds: float | None) -> None:
    """Write the model and the scores; the checkpoints are written already."""
    save_segmenter(module.student, out / "model", module.labels)
    record: dict[str, Any] = {"environment": environment(), "seed": module.seed}
    record["seconds"] = None if seconds is None else round(seconds, 1)
    if result is not None:
        record |= result.as_dict()
    write_text(out / "results.json", json.dumps(record, indent=1))


def environment() -> dict[str, str]:
    """Versions and commit that a number depends on."""
    try:
        git = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:  # a machine without git
        git = ""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "git": git,
        **{name: version(name) for name in PACKAGES},
    }


def hush_lightning() -> None:
    """Hide advertisements, and advice that does not apply to runs without epochs."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for text in (
        ".*does not have many workers.*",
        ".*LeafSpec.*is deprecated.*",
        ".*exists and is not empty.*",
        ".*in eval mode at the start of training.*",  # the teacher, on purpose
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*dirpath has changed.*",  # a run that was moved, then resumed
        ".*manual optimization and every_n_train_steps.*",  # after the update is what we want
    ):
        warnings.filterwarnings("ignore", text)
