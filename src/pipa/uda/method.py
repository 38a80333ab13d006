"""The parts that all methods share: a student, an optimiser and validation, but no training."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Generator, Tensor

from pipa.batch import Batch, Labelled
from pipa.classes import LabelSpace
from pipa.evaluation.scores import Result, Scores
from pipa.models.segmenter import Segmenter
from pipa.models.windows import evaluating, slide
from pipa.uda.augment import jitter_and_blur
from pipa.uda.mixing import Mixed
from pipa.uda.optim import Optim, adamw, parameter_groups, warmup_poly
from pipa.uda.processes import average, process_count, running_statistics
from pipa.uda.pseudo import Pseudo
from pipa.uda.style import Restyle
from pipa.uda.terms.base import SourceTerm, TargetTerm, prepared, target_losses, total


@dataclass
class LastStep:
    """The inputs and labels of the last step, for pictures; references, not copies."""

    source: Labelled
    batch: Batch | None = None
    pseudo: Pseudo | None = None
    mixed: Mixed | None = None


class Method(L.LightningModule, ABC):
    """A way of training a student; a method adds its `training_step`.

    Args:
        student: The network to train.
        labels: Names of the classes, for the validation's scores.
        optim: Learning rate, schedule, clipping.
        source_terms: Losses on the student's prediction for the source.
        target_terms: Losses that run the student on the target.
        start: First step with a target; before it the student learns from the source alone.
        jitter_source: Colour jitter and blur on the source, as on mixed images in DACS (the papers:
            no).
        style: Gives source images the style of the target; None: no change.
        seed: Decides every draw of a step, together with the step's number.
    """

    def __init__(
        self,
        student: Segmenter,
        labels: LabelSpace,
        optim: Optim | None = None,
        *,
        source_terms: Sequence[SourceTerm] = (),
        target_terms: Sequence[TargetTerm] = (),
        start: int = 0,
        jitter_source: bool = False,
        style: Restyle | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.jitter_source, self.style = jitter_source, style
        self.automatic_optimization = False
        self.student, self.optim, self.seed = student, optim or Optim(), seed
        self.source_terms, self.target_terms = tuple(source_terms), tuple(target_terms)
        self.terms = prepared([*source_terms, *target_terms], student)  # trained, checkpointed
        self.start = start
        self.labels, self.scores = labels, Scores(labels)
        self.result: Result | None = None
        self.scored_at = -1
        self.last_step: LastStep | None = None
        self.losses: dict[str, Tensor] = {}
        """The losses of the last step, on the device."""
        self.parts, self.part = 1, 0
        """The parts that a batch is split into (`in_parts`), and the number of the one at hand."""

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the student once."""

    def restyled(self, batch: Batch) -> Labelled:
        """Return the source in the style of the target, if the method has a style."""
        if self.style is None:
            return batch.source
        assert batch.target is not None, "a method with a style needs target images"
        generator = self.step_generator("style")
        image = self.style(batch.source.image, batch.target.image, generator)
        return Labelled(image, batch.source.label)

    def jittered(self, source: Labelled, part: str = "source") -> Labelled:
        """Seed the draws of a student pass; return the source with jitter, if the method has it."""
        generator = self.step_generator(part)
        if not self.jitter_source:
            return source
        return Labelled(jitter_and_blur(source.image, generator), source.label)

    def learn_target_terms(self, batch: Batch, pseudo: Pseudo | None = None) -> dict[str, Tensor]:
        """Run the passes of the target terms, each with a backward of its own; return their losses.

        Args:
            batch: The batch, with a target.
            pseudo: The teacher's labels; None for a method without a teacher.
        """
        losses: dict[str, Tensor] = {}
        terms, step = self.target_terms, self.global_step
        for found in target_losses(self.student, batch, pseudo, terms, step, self.step_generator):
            self.manual_backward(total(found))
            losses |= found
        return losses

    def step_generator(self, part: str) -> Generator:
        """Return the generator of one part of this step: "source", "mixed", or the name of a term.

        It depends on seed, step, process and part only, so that resuming is exact and a further
        term never changes the draws of the others. Dropout, stochastic depth and HRDA's detail crop
        draw from torch's global generator, which gets a seed of its own here.
        """
        torch.manual_seed(self._seed_of("torch", part))
        return torch.Generator(self.device).manual_seed(self._seed_of("own", part))

    def _seed_of(self, *names: str) -> int:
        part = (self.part,) if self.part else ()
        key = (self.seed, self.global_step, self.global_rank, *names, *part)
        return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7])

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Add the gradient of a loss; gradients of the parts of a batch are averaged.

        Operations keep their own precision: under autocast the gradients of those in float32 would
        go through half precision.
        """
        part = loss / self.parts if self.parts > 1 else loss
        with torch.autocast(self.device.type, enabled=False):
            super().manual_backward(part, *args, **kwargs)

    def update(self, losses: dict[str, Tensor]) -> None:
        """Step the optimiser and the schedule, and log each loss by its name.

        With several processes, gradients, running statistics and losses are averaged first.
        """
        if self.parts > 1:
            shares = {name: loss / self.parts for name, loss in losses.items()}
            earlier = self.losses if self.part else {}
            losses = {name: earlier.get(name, 0) + share for name, share in shares.items()}
        self.losses = losses
        if self.part + 1 < self.parts:
            return
        self.average()
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        # With prog_bar, Lightning would read every value from the device in every step.
        self.log_dict({f"loss/{name}": loss for name, loss in self.losses.items()})

    def average(self) -> None:
        """Average over all processes what a step changes, in one all-reduce."""
        if process_count() > 1:
            gradients = [p.grad for p in self.parameters() if p.grad is not None]
            self.losses = {name: loss.clone() for name, loss in self.losses.items()}
            average([*gradients, *running_statistics(self), *self.losses.values()])

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Clip the gradients, which float16 training no longer scales at this point."""
        self.clip_gradients(optimizer, self.optim.clip, "norm")

    def validation_step(self, batch: Labelled, batch_idx: int) -> None:
        """Score the student on one labelled target image."""
        with evaluating(self.student), torch.inference_mode():
            self.scores.update(slide(self.student, batch.image).argmax(1), batch.label)

    def on_validation_epoch_end(self) -> None:
        """Log the mean IoU and that of each class, in percent."""
        self.result, self.scored_at = self.scores.result(), self.global_step
        self.log("miou", self.result.miou, prog_bar=True)
        self.log_dict({f"iou/{k}": v for k, v in self.result.iou.items() if v is not None})
        self.scores.reset()

    def configure_optimizers(self) -> Any:
        """Build AdamW with the papers' groups and schedule, for the student and its terms."""
        optim, steps = self.optim, self.trainer.max_steps
        optimizer = adamw(parameter_groups(self, optim), optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_poly(step, steps, optim.warm_up, optim.power)
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the arguments of the network, so that `pipa.load_segmenter` can build it."""
        checkpoint["hyper_parameters"] = {
            "student": self.student.config,
            "labels": self.labels.as_plain(),
            "resize": self.student.resize,
        }
