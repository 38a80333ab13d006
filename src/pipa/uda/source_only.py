"""Training on the source alone: what every adaptation method is compared with."""

import torch

from pipa.batch import Batch, Labelled
from pipa.classes import LabelSpace
from pipa.models.segmenter import Segmenter
from pipa.uda.augment import jitter_and_blur
from pipa.uda.method import Method, Moment
from pipa.uda.optim import Optim
from pipa.uda.terms import supervised


class SourceOnly(Method):
    """Minimise `L_ce^S` on source images.

    Args:
        student: The network to train.
        labels: The classes.
        optim: Learning rate, schedule, clipping.
        passes: Student passes over each batch, each with its own colours; their losses are
            averaged. A baseline for a method with four passes a step sets 4, so that neither
            sees fewer images.
        jitter: Colour jitter and blur on the images (the papers: none on the source).
        seed: Decides every draw of a step, together with the step's number.
    """

    def __init__(
        self,
        student: Segmenter,
        labels: LabelSpace,
        *,
        optim: Optim | None = None,
        passes: int = 1,
        jitter: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(student, labels, optim, seed)
        self.passes, self.jitter = passes, jitter

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One update of the student on `L_ce^S`."""
        generator = self.chance()
        label = batch.source.label
        losses = []
        for _ in range(self.passes):
            image = (
                jitter_and_blur(batch.source.image, generator)
                if self.jitter
                else batch.source.image
            )
            loss = supervised(self.student.analyse(image), label) / self.passes
            self.manual_backward(loss)
            losses.append(loss.detach())
        self.moment = Moment(source=Labelled(image, label))
        self.update({"source": torch.stack(losses).sum()})
