"""What every method shares with every other: a student, an optimiser, a validation. No training."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Generator, Tensor

from pipa.batch import Batch, Labelled
from pipa.classes import LabelSpace
from pipa.evaluate.scores import Result, Scores
from pipa.models.segmenter import Segmenter
from pipa.models.windows import evaluating, slide
from pipa.uda.augment import jitter_and_blur
from pipa.uda.mixing import Mixed
from pipa.uda.optim import Optim, adamw, parameter_groups, warmup_poly
from pipa.uda.style import Restyle
from pipa.uda.teacher import Pseudo


@dataclass
class LastStep:
    """What the last step looked at, for pictures. References, no copies."""

    source: Labelled
    batch: Batch | None = None
    pseudo: Pseudo | None = None
    mixed: Mixed | None = None


class Method(L.LightningModule, ABC):
    """A way of training a student; `training_step` is all that a method adds.

    Args:
        student: The network to train.
        labels: Names of the classes, for the validation's scores.
        optim: Learning rate, schedule, clipping.
        jitter_source: Colour jitter and blur on the source, as DACS has it on mixed images (the
            papers: no).
        style: Gives source images the style of the target; None: they stay as they are.
        seed: Decides every draw of a step, together with the step's number.
    """

    def __init__(
        self,
        student: Segmenter,
        labels: LabelSpace,
        optim: Optim | None = None,
        *,
        jitter_source: bool = False,
        style: Restyle | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.jitter_source, self.style = jitter_source, style
        self.automatic_optimization = False
        self.student, self.optim, self.seed = student, optim or Optim(), seed
        self.labels, self.scores = labels, Scores(labels)
        self.result: Result | None = None
        self.scored_at = -1
        self.last_step: LastStep | None = None
        self.losses: dict[str, Tensor] = {}

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One update of the student."""

    def restyled(self, batch: Batch) -> Labelled:
        """The source in the style of the target, where the method has a style."""
        if self.style is None:
            return batch.source
        assert batch.target is not None, "a method with a style needs target images"
        generator = self.step_generator("style")
        image = self.style(batch.source.image, batch.target.image, generator)
        return Labelled(image, batch.source.label)

    def jittered(self, source: Labelled, part: str = "source") -> Labelled:
        """The source as the student sees it, and the start of the draws of this pass."""
        generator = self.step_generator(part)
        if not self.jitter_source:
            return source
        return Labelled(jitter_and_blur(source.image, generator), source.label)

    def step_generator(self, part: str) -> Generator:
        """The generator of one part of this step: "source", "mixed", or the name of a term.

        It is a function of seed, step, process and part, so that resuming is exact and switching a
        term on never changes what the others draw. Dropout, stochastic depth and HRDA's detail crop
        draw from torch's global generator, which is seeded as well, with another number.
        """
        torch.manual_seed(self._seed_of("torch", part))
        return torch.Generator(self.device).manual_seed(self._seed_of("own", part))

    def _seed_of(self, *names: str) -> int:
        key = (self.seed, self.global_step, self.global_rank, *names)
        return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:7])

    def update(self, losses: dict[str, Tensor]) -> None:
        """Step, follow the schedule, and log each loss by its name."""
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        self.losses = losses
        self.log_dict({f"loss/{name}": loss for name, loss in losses.items()}, prog_bar=True)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Clip; here the gradients are no longer scaled, as they are before (float16)."""
        self.clip_gradients(optimizer, self.optim.clip, "norm")

    def validation_step(self, batch: Labelled, batch_idx: int) -> None:
        """Score the student on one labelled target image."""
        with evaluating(self.student), torch.inference_mode():
            self.scores.update(slide(self.student, batch.image).argmax(1), batch.label)

    def on_validation_epoch_end(self) -> None:
        """Log the mean IoU in percent."""
        self.result, self.scored_at = self.scores.result(), self.global_step
        self.log("miou", self.result.miou, prog_bar=True)
        self.scores.reset()

    def configure_optimizers(self) -> Any:
        """AdamW with the papers' groups and schedule, over the student and what terms train."""
        optim, steps = self.optim, self.trainer.max_steps
        optimizer = adamw(parameter_groups(self, optim), optim)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_poly(step, steps, optim.warm_up, optim.power)
        )
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which network this is, so that `pipa.load_segmenter` can build it."""
        labels = {"names": self.labels.names, "colours": self.labels.colours}
        checkpoint["hyper_parameters"] = {"student": self.student.config, "labels": labels}

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the student, at the image's size."""
        return self.student(image)  # type: ignore[no-any-return]
