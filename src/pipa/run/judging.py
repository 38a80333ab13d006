"""Judging without labels, during training and at its end.

The student at `method.start`, which has seen only the source (in the target's colours, with a
style), is kept as the source-only model. At the end the adapted student is compared with it, and
replaced by it if adaptation made it worse: by the labelled images if there are any, else by the
verdict without labels.
"""

import copy
import itertools
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from jaxtyping import Int, UInt8
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from pipa.data.module import UDAData
from pipa.data.unlabelled import each_image, source_pixels
from pipa.evaluation.evaluate import score_images
from pipa.evaluation.judge import Judgement, Verdict, judge
from pipa.evaluation.scores import Result
from pipa.models.labeller import Labeller
from pipa.models.segmenter import Segmenter
from pipa.run.engine import validation_interval
from pipa.run.recipes import MethodOptions
from pipa.uda.method import Method

log = logging.getLogger("pipa")

ADAPTED, SOURCE_ONLY = "adapted", "source-only"


class Judge(Callback):
    """Judges the student at every validation; keeps the source-only student.

    It logs `judge/score` and its parts, and `judge/same`: the share of pixels for which the student
    and the source-only model predict the same class.

    Args:
        images: Target images at the size of use.
        shares: Pixels of each class in the source's labels.
        start: The first step with a target.
        every: Steps between two judgements.
    """

    def __init__(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        shares: Int[np.ndarray, " k"],
        *,
        start: int,
        every: int,
    ) -> None:
        self.images, self.shares, self.start, self.every = images, shares, start, every
        self.source_only: dict[str, Tensor] | None = None
        self.before: list[UInt8[np.ndarray, "_ _"]] | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Judge the student; keep it before its first step with a target.

        At the end of a step: within one `CompileParts` would compile for each size of the images.
        """
        assert isinstance(module, Method)
        if trainer.global_step % self.every == 0:
            self._judge(trainer, module)
        if trainer.global_step == self.start > 0 and self.source_only is None:
            state = module.student.state_dict()
            self.source_only = {name: value.detach().cpu().clone() for name, value in state.items()}
            self.before = self._predicted(module.student)

    def _judge(self, trainer: L.Trainer, module: Method) -> None:
        found = vars(judge({ADAPTED: module.student}, self.images, self.shares).figures(ADAPTED))
        logged = {f"judge/{name}": float(found[name]) for name in ("score", "agreement", "js")}
        if self.before is not None:
            now = self._predicted(module.student)
            same = [float((a == b).mean()) for a, b in zip(now, self.before, strict=True)]
            logged["judge/same"] = float(np.mean(same))
        module.log_dict(logged, logger=False)  # Lightning would write them at other steps, or never
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step - 1)

    def _predicted(self, student: Segmenter) -> list[UInt8[np.ndarray, "_ _"]]:
        """Label the images as they are: they have the size at which the student sees images."""
        labeller = Labeller(student, scale=1.0)
        return [labeller([image])[0].ids for image in self.images]

    def state_dict(self) -> dict[str, Any]:
        """Save the source-only student in checkpoints."""
        before = None if self.before is None else [torch.from_numpy(one) for one in self.before]
        return {"source_only": self.source_only, "before": before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the source-only student."""
        self.source_only, before = state_dict["source_only"], state_dict["before"]
        self.before = None if before is None else [one.numpy() for one in before]

    def source_only_model(self, student: Segmenter) -> Segmenter | None:
        """Return the source-only model; None if the target was used from the first step."""
        if self.source_only is None:
            return None
        model = copy.deepcopy(student)
        model.load_state_dict(self.source_only)
        return model

    def conclude(
        self, adapted: Segmenter, source_only: Segmenter, device: torch.device | str = "cpu"
    ) -> tuple[Judgement, Verdict]:
        """Compare the adapted student with the source-only model, on a device; both return."""
        before = adapted.mean.device, source_only.mean.device
        models = {ADAPTED: adapted.to(device), SOURCE_ONLY: source_only.to(device)}
        found = judge(models, self.images, self.shares)
        for model, place in zip(models.values(), before, strict=True):
            model.to(place)
        return found, found.verdict(ADAPTED, SOURCE_ONLY)


def judge_for(
    data: UDAData, method: MethodOptions, trainer: Mapping[str, Any], count: int, *, adapts: bool
) -> Judge | None:
    """Build the callback that judges a run without labels.

    Args:
        data: The data.
        method: The method, with its start.
        trainer: Options of the trainer, with the interval of validations.
        count: Maximum number of target images.
        adapts: Whether the method or a term learns from the target; its style alone is no
            adaptation.

    Returns:
        None, with a line in the log, if there is nothing to judge.

    Raises:
        PipaError: An image of the target or a label of the source is faulty.
    """
    if data.target is None or not adapts:
        log.warning("--judge has no effect: %s learns from the source alone", method.name)
        return None
    if method.start == 0:
        log.warning(
            "no verdict at the end: without --method.start N there is no source-only student "
            "to compare with"
        )
    same: dict[str, Any] = {"format": data.format, "skipped": data.skippable}
    return Judge(
        list(each_image(data.target, count, resize=data.target_resize, crop=data.crop, **same)),
        source_pixels(data.source, classes=data.classes, **same),
        start=method.start,
        every=validation_interval(trainer),
    )


def score_source_only(
    judging: Judge, module: Method, data: UDAData, engine: L.Trainer
) -> Result | None:
    """Score the source-only model on the images on which the adapted student was scored.

    Returns:
        None without labelled images or a source-only model, and in several processes, of which
        each sees a share of the images.
    """
    model = judging.source_only_model(module.student)
    if model is None or data.validation is None or engine.world_size > 1:
        return None
    if not sum(engine.num_val_batches):  # --trainer.limit_val_batches 0
        return None
    count = int(min(engine.num_val_batches[0], sys.maxsize))
    images = itertools.islice(data.val_dataloader(), count)
    with engine.precision_plugin.forward_context():  # as the adapted student was scored
        return score_images(model.to(engine.strategy.root_device), images, module.labels)


@dataclass(frozen=True)
class Conclusion:
    """Whether the adapted student or the source-only model is kept, and why.

    Labelled images decide where both were scored on them; else the verdict without labels does.

    Args:
        verdict: The comparison without labels.
        adapted: Scores of the adapted student; None without labelled images.
        source_only: Scores of the source-only model on the same images; None likewise.
    """

    verdict: Verdict
    adapted: Result | None = None
    source_only: Result | None = None

    @property
    def mious(self) -> tuple[float, float] | None:
        """The mIoU of the adapted and the source-only model; None if either is not known."""
        if self.adapted is None or self.source_only is None:
            return None
        found = self.adapted.miou, self.source_only.miou
        return None if any(map(math.isnan, found)) else found

    @property
    def keeps_adapted(self) -> bool:
        """Whether the adapted student is kept: unless it is worse."""
        if self.mious is None:
            return self.verdict.outcome != "worse"
        adapted, source_only = self.mious
        return adapted >= source_only

    def __str__(self) -> str:
        """Return the conclusion in plain words."""
        kept = (
            "the adapted model is kept"
            if self.keeps_adapted
            else "the source-only model is kept, the adapted one is in model_adapted"
        )
        if self.mious is None:
            found = {
                "better": "Adaptation helped",
                "worse": "Adaptation made it worse",
                "not distinguishable": "It is uncertain whether adaptation helped",
            }[self.verdict.outcome]
            return f"{found}: {kept}. Judged without labels: {self.verdict}."
        adapted, source_only = self.mious
        return (
            f"On the labelled images the adapted model has {adapted:.2f} mIoU, the source-only "
            f"model {source_only:.2f}: {kept}. Judged without labels, which decides nothing here: "
            f"{self.verdict}."
        )
