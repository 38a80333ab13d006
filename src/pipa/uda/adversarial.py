"""Adversarial alignment of the student's outputs: ADVENT and AdaptSegNet, single level.

A discriminator learns to tell source from target by the student's predictions; the student learns
to make its predictions for the target pass for source. The arithmetic is in `losses.adversarial`.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from pipa.batch import Batch
from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.losses.adversarial import domain_cross_entropy
from pipa.losses.entropy import weighted_self_information
from pipa.models.discriminator import Discriminator
from pipa.models.segmenter import Prediction, Segmenter
from pipa.uda.method import LastStep, Method
from pipa.uda.optim import Optim
from pipa.uda.style import Restyle
from pipa.uda.terms.base import (
    SourceTerm,
    TargetTerm,
    refuse_teachers,
    source_losses,
    total,
    upsampled,
)

Shown = list[tuple[Tensor, float]]
"""What the discriminator sees of one prediction: a map `b k h w` of each output, and its share."""


class Adversarial(Method):
    """Minimise `L_ce^S + lambda_adv L_adv` against a discriminator that minimises `L_d`.

    ADVENT (Vu et al., CVPR 2019), which shows the discriminator the weighted self-information, or
    AdaptSegNet (Tsai et al., CVPR 2018), which shows it the softmax.

    Args:
        student: The network to adapt.
        labels: The classes.
        optim: Learning rate, schedule, clipping of the student; the discriminator has its own.
        shown: From logits `b k h w` to the discriminator's input, of the same shape:
            `losses.entropy.weighted_self_information` (ADVENT) or
            `losses.adversarial.probability` (AdaptSegNet).
        adversarial: lambda_adv, the weight of the student's loss, above 0 (0.001 in both papers).
        discriminator: The student's opponent; one for all outputs. None: the papers'.
        source_terms: Losses on the student's prediction for the source.
        target_terms: Losses that run the student on the target without a teacher.
        start: First step with a target; before it the student learns from the source alone.
        jitter_source: Colour jitter and blur on the source (the papers: no).
        style: Gives source images the style of the target; None: no change.
        seed: Decides every draw of a step, together with the step's number.

    Raises:
        PipaError: A term needs a teacher, or `adversarial` is not above 0.
    """

    def __init__(
        self,
        student: Segmenter,
        labels: LabelSpace,
        *,
        optim: Optim | None = None,
        shown: Callable[[Tensor], Tensor] = weighted_self_information,
        adversarial: float = 0.001,
        discriminator: Discriminator | None = None,
        source_terms: Sequence[SourceTerm] = (),
        target_terms: Sequence[TargetTerm] = (),
        start: int = 0,
        jitter_source: bool = False,
        style: Restyle | None = None,
        seed: int = 0,
    ) -> None:
        if not adversarial > 0:
            remedy = "Without this loss the method is --method.name source_only."
            raise PipaError(f"is {adversarial}, must be above 0", "--method.adversarial", remedy)
        refuse_teachers([*source_terms, *target_terms])
        opponent = discriminator or Discriminator(labels.num_classes)
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
        self.discriminator, self.shown, self.weight = opponent, shown, adversarial

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the student and the discriminator once."""
        step = self.global_step
        source = self.jittered(self.restyled(batch))
        self.last_step = LastStep(source)
        prediction = self.student.analyse(source.image)
        # L_ce^S, your own terms
        losses = source_losses(prediction, source, self.source_terms, step, self.step_generator)
        self.manual_backward(total(losses))

        if batch.target is not None and step >= self.start:
            of_source = self.show(prediction)
            self.step_generator("adversarial")
            of_target = self.show(self.student.analyse(batch.target.image))
            losses["adversarial"] = self.weight * self.fool(of_target)  # lambda_adv L_adv
            self.manual_backward(losses["adversarial"])
            losses["discriminator_source"] = self.teach(of_source, source=True)  # L_d
            self.manual_backward(losses["discriminator_source"])
            losses["discriminator_target"] = self.teach(of_target, source=False)
            self.manual_backward(losses["discriminator_target"])
            losses |= self.learn_target_terms(batch)  # your own

        self.update({name: loss.detach() for name, loss in losses.items()})

    def show(self, prediction: Prediction) -> Shown:
        """Return the discriminator's input for a prediction, at the size of the outputs' boxes."""
        return [(self.shown(upsampled(output)), output.weight) for output in prediction.outputs]

    def fool(self, maps: Shown) -> Float[Tensor, ""]:
        """Return the student's loss, `L_adv`; the discriminator is a constant in it."""
        constant = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        each = [
            share
            * domain_cross_entropy(
                functional_call(self.discriminator, constant, (seen,)), source=True
            )
            for seen, share in maps
        ]
        return torch.stack(each).sum()

    def teach(self, maps: Shown, *, source: bool) -> Float[Tensor, ""]:
        """Return the discriminator's loss on one domain, half of `L_d`; the student is constant."""
        each = [
            share * domain_cross_entropy(self.discriminator(seen.detach()), source=source) / 2
            for seen, share in maps
        ]
        return torch.stack(each).sum()
