"""Adaptation without a teacher: the source's labels, and terms on the target.

Entropy minimisation and adversarial alignment are terms (`alignment_terms`) over the same step:

- MinEnt (Vu et al., ADVENT, CVPR 2019): `target_terms=[EntropyTerm()]`.
- ADVENT (same paper): the three terms of `adversarial_terms`.
- AdaptSegNet (Tsai et al., CVPR 2018), single level: the same, shown `probability`.
- MIC (Hoyer et al., CVPR 2023) on any of them: `MaskedConsistency(teacher="own")`.
"""

from collections.abc import Sequence

import torch

from pipa.batch import Batch, Labelled
from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.models.segmenter import Segmenter
from pipa.uda.augment import jitter_and_blur
from pipa.uda.method import Method, Moment
from pipa.uda.optim import Optim
from pipa.uda.terms import SourceTerm, TargetTerm, prepared, source_losses, weighted


class Alignment(Method):
    """Minimise `L_ce^S` and the terms; the method has no teacher that labels the target.

    MinEnt and ADVENT (Vu et al., CVPR 2019), AdaptSegNet (Tsai et al., CVPR 2018), by their terms.

    Args:
        student: The network to adapt.
        labels: The classes.
        optim: Learning rate, schedule, clipping.
        source_terms: Losses on the student's prediction for the source.
        target_terms: Losses that run the student on the target, none of which needs a teacher.
        start: First step with a target; before it the student learns from the source alone.
        jitter_source: Colour jitter and blur on the source (the papers: no).
        seed: Decides every draw of a step, together with the step's number.

    Raises:
        PipaError: A term needs a teacher.
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
        jitter_source: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(student, labels, optim, seed)
        for term in target_terms:
            if term.needs_teacher:
                raise PipaError(
                    "learns from a teacher's labels, and alignment has no teacher",
                    f"term {term.name}",
                    "Leave it out, or take self_training; for MIC: --masked.teacher own.",
                )
        self.source_terms, self.target_terms = tuple(source_terms), tuple(target_terms)
        self.terms = prepared([*source_terms, *target_terms], student)  # trained, checkpointed
        self.start, self.jitter_source = start, jitter_source

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One update of the student, and of what its terms train."""
        step, generator = self.global_step, self.chance()
        source = batch.source
        if self.jitter_source:
            source = Labelled(jitter_and_blur(source.image, generator), source.label)
        self.moment = Moment(source)
        # L_ce^S, yours
        losses = source_losses(self.student, source, self.source_terms, step, generator)
        self.manual_backward(torch.stack(list(losses.values())).sum())

        if batch.target is not None and step >= self.start:
            given = self.student, batch, None, generator
            for name, loss in weighted(self.target_terms, step, *given):  # L_ent, L_adv, L_d, yours
                losses[name] = loss
                self.manual_backward(loss)

        self.update({name: loss.detach() for name, loss in losses.items()})
