"""Self-training from a labelled source to an unlabelled target.  READ THIS FIRST.

DACS and DAFormer: an EMA teacher labels target images, the student learns from ClassMix images;
PiPa, MIC and feature distance are terms that are switched on. One backward per student pass.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from pipa.batch import IGNORE_INDEX, Batch, Labelled, Unlabelled
from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.models.segmenter import Prediction, Segmenter
from pipa.uda.augment import jitter_and_blur
from pipa.uda.method import LastStep, Method
from pipa.uda.mixing import Mix, Mixed, mix_images
from pipa.uda.optim import Optim
from pipa.uda.pseudo import Pseudo, PseudoWeight
from pipa.uda.style import Restyle
from pipa.uda.teacher import Teacher
from pipa.uda.terms.base import (
    SourceTerm,
    TargetTerm,
    active,
    seen_losses,
    source_losses,
    supervised,
    total,
)


class SelfTraining(Method):
    """Minimise `L_ce^S + L_ce^T + alpha L_Pixel + beta L_Patch + ...`.

    DACS (Tranheden et al., WACV 2021); with rare class sampling and feature distance DAFormer
    (Hoyer et al., CVPR 2022), with its student HRDA (ECCV 2022); with its two terms PiPa (Chen et
    al., ACM MM 2023).

    Args:
        student: The network to adapt.
        labels: The classes.
        optim: Learning rate, schedule, clipping.
        source_terms: Losses on the student's prediction for the source: PiPa's pixel term, ...
        target_terms: Losses that run the student on the target: PiPa's patch term, MIC, ...
        momentum: Momentum of the teacher's moving average (0.999: DAFormer).
        confidence: Minimum probability of a sure pseudo-label; the share of sure pixels is the
            weight q_T (0.968: DACS; DAFormer, HRDA and PiPa keep it).
        pseudo_weight: The weight of pseudo-labels: "share", q_T everywhere (the papers); or for
            each pixel "confidence" or "balanced" (`pseudo.pseudo_label`).
        align_shares: Pull the shares of the teacher's classes towards the source's by this
            exponent, 0 .. 1 (`teacher.ShareAlignment`); 0: no.
        marginal: Pseudo-labels spare the classes that they do not name in an image: a pixel's loss
            is that of "my label, or a class that the teacher found nowhere here", so that what
            the teacher misses is not unlearnt (the papers: no).
        mix: The part of the source that is pasted onto the target: "class" (ClassMix, the papers),
            "small" (ClassMix, small classes first), "rectangle" or "none" (`mixing.mix_images`).
        start: First step with a target; before it the student learns from the source alone.
            The papers start at 0 from ImageNet weights; a network from scratch needs a head start.
        jitter_source: Colour jitter and blur on the source too, as on mixed images in DACS (the
            papers: no).
        style: Gives source images the style of the target; None: no change.
        one_pass: Source and mixed images go through the student as one batch: fewer and larger
            operations, more memory. Not with batch norms, whose statistics would mix the domains.
        seed: Decides every draw of a step, together with the step's number.

    Raises:
        PipaError: `one_pass` and the student has batch norms.
    """

    def __init__(
        self,
        student: Segmenter,
        labels: LabelSpace,
        *,
        optim: Optim | None = None,
        source_terms: Sequence[SourceTerm] = (),
        target_terms: Sequence[TargetTerm] = (),
        momentum: float = 0.999,
        confidence: float = 0.968,
        pseudo_weight: PseudoWeight = "share",
        align_shares: float = 0.0,
        marginal: bool = False,
        mix: Mix = "class",
        start: int = 0,
        jitter_source: bool = False,
        style: Restyle | None = None,
        one_pass: bool = False,
        seed: int = 0,
    ) -> None:
        if one_pass and any(isinstance(module, _BatchNorm) for module in student.modules()):
            problem = "mixes source and target in the statistics of this network's batch norms"
            raise PipaError(problem, "--method.one_pass", "Leave it out.")
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
        self.teacher = Teacher(
            student,
            momentum=momentum,
            confidence=confidence,
            pseudo_weight=pseudo_weight,
            align_shares=align_shares,
            marginal=marginal,
        )
        self.pasted: Mix = mix
        self.one_pass = one_pass

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the student once, term by term as in the paper."""
        step = self.global_step
        if self.part == 0:
            self.teacher.follow(self.student, step=max(0, step - self.start))  # EMA

        source = self.restyled(batch)
        seen = self.jittered(source)
        self.last_step = LastStep(seen)
        adapts = batch.target is not None and step >= self.start
        joint = adapts and self.one_pass
        if joint:
            pseudo, mixed = self.pseudo_labelled(batch, source, step)
            both = self.student.analyse(torch.cat([seen.image, mixed.image]))
            prediction, of_mixed = both.split(len(seen.image))
        else:
            prediction = self.student.analyse(seen.image)
        # L_ce^S, alpha L_Pixel, your own terms
        losses = source_losses(prediction, seen, self.source_terms, step, self.step_generator)
        if joint:
            losses |= self.mixed_losses(of_mixed, mixed, step)
        self.manual_backward(total(losses))

        if adapts:
            if not joint:
                pseudo, mixed = self.pseudo_labelled(batch, source, step)
                found = self.mixed_losses(self.student.analyse(mixed.image), mixed, step)
                self.manual_backward(total(found))
                losses |= found
            losses |= self.learn_target_terms(batch, pseudo)  # beta L_Patch, MIC, your own
            self.last_step = LastStep(seen, batch, pseudo, mixed)

        self.update({name: loss.detach() for name, loss in losses.items()})

    def pseudo_labelled(self, batch: Batch, source: Labelled, step: int) -> tuple[Pseudo, Mixed]:
        """Return the teacher's labels p_T, with their weight q_T, and the mixed images."""
        assert batch.target is not None
        reads_pair = any(term.needs_pair for term, _ in active(self.target_terms, step))
        self.teacher.observe(source.label)
        pseudo = self.teacher.label(batch.target, batch.pair if reads_pair else None)
        return pseudo, self.mix(source, batch.target, pseudo, self.step_generator("mixed"))

    def mixed_losses(self, prediction: Prediction, mixed: Mixed, step: int) -> dict[str, Tensor]:
        """Return `L_ce^T`, and the source terms that look at mixed images."""
        known = Labelled(mixed.image, mixed.label.where(mixed.sure, IGNORE_INDEX))
        terms = self.source_terms
        found = seen_losses(prediction, known, "mixed", terms, step, self.step_generator)
        loss = supervised(prediction, mixed.label, mixed.weight, mixed.spared)
        return {"mixed": loss} | found

    def mix(
        self, source: Labelled, target: Unlabelled, pseudo: Pseudo, generator: Generator
    ) -> Mixed:
        """Return x^Mix: source pasted onto target (ClassMix), then colour jitter and blur."""
        mixed = mix_images(source, target, pseudo, generator, mix=self.pasted)
        mixed.image = jitter_and_blur(mixed.image, generator)
        return mixed
