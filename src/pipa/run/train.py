"""One run: from the sections of an experiment file to a trained segmenter on disk.

A run's folder holds `config.yaml`, `metrics.csv`, TensorBoard events, `checkpoints/` (`last.ckpt`,
`best.ckpt` where something can be scored, the newest `step*.ckpt`), `model/` (for `pipa predict`
and `pipa eval`), `results.json`, `confusion.csv` and `report.html`; with a judge `source_only/`,
and `model_adapted/` where the source-only model was kept.
"""

import contextlib
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from pipa.batch import Needs
from pipa.data.module import UDAData
from pipa.data.unlabelled import brightness_gap
from pipa.errors import Interrupted, PipaError
from pipa.evaluation.scores import Result
from pipa.files.odd_names import utf8_path
from pipa.files.writing import write_text
from pipa.models.checkpoint import check_names, read_checkpoint
from pipa.models.layout import use_fast_layout
from pipa.run.checkpoints import in_one_line
from pipa.run.devices import (
    settle_devices,
    tell_of_batch,
    told_of_lost_processes,
    training_device,
)
from pipa.run.ending import Run, write_report_if_possible, write_run
from pipa.run.engine import build_trainer, earlier_metrics, hush_lightning
from pipa.run.folder import forget_end, prepare_folder
from pipa.run.interrupt import StopOnSignal
from pipa.run.judging import judge_for, score_source_only
from pipa.run.options import TRAINER, StudentOptions, build_student
from pipa.run.patience import patience_for
from pipa.run.recipes import MethodOptions, build_method, chosen_terms
from pipa.run.speed import Speed
from pipa.uda.method import Method
from pipa.uda.optim import Optim
from pipa.uda.terms import Term, default_terms

log = logging.getLogger("pipa")

FAR_APART = 4.0
"""Difference in brightness, in standard deviations, beyond which colours may be inverted."""


def train(
    out: str | Path,
    *,
    data: UDAData,
    student: StudentOptions | str = "daformer_mit_b5",
    method: MethodOptions | str = "pipa",
    optim: Optim | None = None,
    trainer: Mapping[str, Any] | None = None,
    terms: Sequence[Term] | None = None,
    speed: Speed | None = None,
    seed: int = 0,
    judge: int = 0,
    resume: bool = False,
    config: str | None = None,
    callbacks: Sequence[Callback] = (),
    report: bool = True,
) -> Run:
    """Train, validate, and write the run's folder.

    Args:
        out: The run's folder; a new one unless `resume`.
        data: The data.
        student: The network, or its name.
        method: The method, or its name.
        optim: Learning rate, schedule, clipping; None: DAFormer's.
        trainer: Arguments of Lightning's trainer, such as `max_steps` (default: 40,000).
        terms: The method's terms; None: those that `method` names, with their defaults.
        speed: Compiling, and less memory; None: neither.
        seed: Decides the first weights and every draw of the method; `data` have a seed, too.
        judge: Target images by which to judge, without labels, whether adaptation helped; the
            source-only model is kept if it did not. Where labelled images were scored, these
            decide. 0: no judgement.
        resume: Continue from the folder's last checkpoint.
        config: Text of the experiment file, to be kept in the folder.
        callbacks: Further callbacks of Lightning.
        report: Whether to write `report.html`.

    Raises:
        PipaError: The folder holds another run or cannot be written, the data are bad, or a loss or
            a weight is not finite.
        Interrupted: SIGTERM or Ctrl-C ended the run; the step that was at hand is saved.

    Examples:
        >>> data = pipa.UDAData("synthetic", "photos", crop=32, workers=0)
        >>> short = {"max_steps": 3, "enable_progress_bar": False}
        >>> run = pipa.train("out", data=data, student="small", method="dacs", trainer=short)
        >>> run.model.predict("photo.jpg").shape  # class ids of an image of 48x64 pixels
        (48, 64)
    """
    since, out = time.perf_counter(), Path(out)
    student = StudentOptions(student) if isinstance(student, str) else student
    method = MethodOptions(method) if isinstance(method, str) else method
    optim, trainer = optim or Optim(), {**TRAINER, **(trainer or {})}
    steps = trainer["max_steps"]
    speed = speed or Speed()
    trainer = settle_devices(trainer)
    terms = chosen_terms(method, default_terms()) if terms is None else terms
    data = answer(data, method, terms, steps)
    method = settle_style(method, data)
    last = prepare_folder(out, resume, steps)
    warn_of_idle(steps, optim, terms)
    stop = StopOnSignal(out)
    with (
        stop.listening(),
        in_one_line(out),
        told_of_lost_processes(out),
        warnings.catch_warnings(),
        utf8_path(out) as events,
    ):
        module = set_up(
            out,
            data,
            student,
            method,
            terms,
            optim=optim,
            device=training_device(trainer),
            seed=seed,
            last=last,
        )
        speed.prepare(module, data.batch_size)
        if config is not None:
            write_text(out / "config.yaml", config)
        hush_lightning()
        adapts = learns_from_target(method, terms)
        judging = judge_for(data, method, trainer, judge, adapts=adapts) if judge else None
        patience = patience_for(trainer, data, method.start, judged=judging is not None)
        watching = [] if judging is None else [judging]
        callbacks = [*speed.callbacks, *callbacks, *watching, *patience, stop]
        earlier = earlier_metrics(out, last)
        engine = build_trainer(
            out, data, trainer, callbacks, earlier, judged=judging is not None, events=events
        )
        tell_of_batch(engine, data.batch_size, optim.lr)
        if last is not None and engine.is_global_zero:
            forget_end(out)
        engine.fit(module, datamodule=data, ckpt_path=last)
        engine.save_checkpoint(out / "checkpoints" / "last.ckpt")  # the end, whatever the interval
        result = validate(engine, module, data)
        stop.waits = True  # what is left takes seconds
        if not engine.is_global_zero:
            return Run(out, module.student, data.labels, result, is_first=False)
        before = None if judging is None else score_source_only(judging, module, data, engine)
        # Of a run that was resumed, this process knows the end only.
        seconds = None if resume else time.perf_counter() - since
        # Lightning has moved the network off the device.
        run = write_run(out, module, result, seconds, judging, before, engine.strategy.root_device)
        if report:
            write_report_if_possible([out], out)
        return run


def set_up(
    out: Path,
    data: UDAData,
    student: StudentOptions,
    method: MethodOptions,
    terms: Sequence[Term],
    *,
    optim: Optim,
    device: str,
    seed: int,
    last: Path | None,
) -> Method:
    """Open the data and build the method with its network; on an error leave no empty folder.

    Raises:
        PipaError: The data are bad, or the checkpoint is that of another network.
    """
    try:
        data.setup("fit")
        L.seed_everything(seed, verbose=False)
        network = build_student(student, data.labels.num_classes)
        network.labels, network.resize = data.labels, data.target_resize
        use_fast_layout(network, device)
        module = build_method(
            method,
            network,
            data.labels,
            terms,
            optim=optim,
            pretrained=student.weights is not None,
            seed=seed,
        )
        if last is not None:
            check_names(module.state_dict(), read_checkpoint(last)["state_dict"], last)
    except (PipaError, Interrupted):
        with contextlib.suppress(OSError):
            out.rmdir()  # only if it is empty: no unfinished run stays behind
        raise
    return module


def learns_from_target(options: MethodOptions, terms: Sequence[Term]) -> bool:
    """Whether a loss of the method looks at target images; their style alone teaches nothing."""
    return options.recipe.needs_target or any(term.needs_target for term in terms)


def needs_of(options: MethodOptions, terms: Sequence[Term]) -> Needs:
    """Return the needs of a method with these terms."""
    return Needs(
        target=options.style != "none" or learns_from_target(options, terms),
        pair=any(term.needs_pair for term in terms),
        rare_classes=options.recipe.rare_classes,
    )


def answer(data: UDAData, method: MethodOptions, terms: Sequence[Term], steps: int) -> UDAData:
    """Return the data with the parts that the method needs.

    Raises:
        PipaError: The method needs target images and none are given, or training ends before
            `method.start`.
    """
    needs = needs_of(method, terms)
    if learns_from_target(method, terms) and method.start >= steps:
        raise PipaError(
            f"is {method.start}: with {steps} steps the target is never used",
            "--method.start",
            "Lower it (and --patch.start), or train for longer.",
        )
    return data.answer(needs)


def settle_style(method: MethodOptions, data: UDAData) -> MethodOptions:
    """Decide `style: auto` by the images: turn colours only if they cannot correspond."""
    if method.style != "auto":
        return method
    assert data.target is not None, "a style needs a target"
    gap = brightness_gap(data.source, data.target, format=data.format, skipped=data.skippable)
    turn = gap > FAR_APART
    log.info("style: the brightness differs by %.1f deviations; turn colours: %s", gap, turn)
    return replace(method, style="colour", style_turn=turn)


def warn_of_idle(steps: int, optim: Optim, terms: Sequence[Term]) -> None:
    """Warn about losses that would start only after the last step."""
    starts = {f"{term.name}.start": term.start for term in terms}
    for name, first in ({"optim.warm_up": optim.warm_up} | starts).items():
        if first >= steps:
            log.warning("--%s is %d, and the run has %d steps only", name, first, steps)


def validate(engine: L.Trainer, module: Method, data: UDAData) -> Result | None:
    """Score the finished student on the whole validation set."""
    if data.validation is None:
        return None
    if module.scored_at == engine.global_step and engine.limit_val_batches == 1.0:
        return module.result  # the last step of training has just done so
    engine.validate(module, datamodule=data, verbose=False)
    return module.result
