"""Training without a teacher: on the source's labels, with terms that need no pseudo-labels."""

from collections.abc import Sequence

import torch

from pipa.batch import Batch
from pipa.classes import LabelSpace
from pipa.errors import at_least
from pipa.models.segmenter import Segmenter
from pipa.uda.method import LastStep, Method
from pipa.uda.optim import Optim
from pipa.uda.style import Restyle
from pipa.uda.terms.base import (
    SourceTerm,
    TargetTerm,
    refuse_teachers,
    source_losses,
    total,
)


class SourceOnly(Method):
    """Minimise `L_ce^S` and the terms; without terms, the baseline of every adaptation method.

    With `EntropyTerm` it is MinEnt (Vu et al., ADVENT, CVPR 2019); with
    `MaskedConsistency(teacher="own")` it is MIC alone (Hoyer et al., CVPR 2023).

    Args:
        student: The network to train.
        labels: The classes.
        optim: Learning rate, schedule, clipping.
        source_terms: Losses on the student's prediction for the source.
        target_terms: Losses that run the student on the target without a teacher.
        start: First step with a target; before it the student learns from the source alone.
        passes: Student passes over each source batch, each with its own jitter (the style is drawn
            once a step); their losses are averaged. A baseline for a method with four passes a step
            sets 4, so that both see equally many images.
        jitter_source: Colour jitter and blur on the source (the papers: no).
        style: Gives source images the style of the target; None: no change.
        seed: Decides every draw of a step, together with the step's number.

    Raises:
        PipaError: A term needs a teacher, or `passes` is below 1.
    """

    def __init__(
        self,
        student: Segmenter,
        labels: LabelSpace,
        *,
        optim: Optim | None = None,
        source_terms: Sequence[SourceTerm] = (),
        target_terms: Sequence[TargetTerm] = (),
        start: int = 0,
        passes: int = 1,
        jitter_source: bool = False,
        style: Restyle | None = None,
        seed: int = 0,
    ) -> None:
        at_least(1, passes, "method.passes")
        refuse_teachers([*source_terms, *target_terms])
        super().__init__(
            student,
            labels,
            optim,
            source_terms=source_terms,
            target_terms=target_terms,
            start=start,
            jitter_source=jitter_source,
            style=style,
            seed=seed,
        )
        self.passes = passes

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the student and its terms once."""
        step = self.global_step
        losses: dict[str, torch.Tensor] = {}
        for number in range(self.passes):
            source = self.jittered(self.restyled(batch), f"source{number or ''}")
            prediction = self.student.analyse(source.image)
            # L_ce^S, your own terms
            found = source_losses(prediction, source, self.source_terms, step, self.step_generator)
            self.manual_backward(total(found) / self.passes)
            for name, loss in found.items():
                losses[name] = losses.get(name, 0) + loss.detach() / self.passes
        self.last_step = LastStep(source)

        if batch.target is not None and step >= self.start:
            losses |= self.learn_target_terms(batch)  # L_ent, your own

        self.update({name: loss.detach() for name, loss in losses.items()})
