"""The interface of a term: a named loss with a weight, and its needs.

A `SourceTerm` uses the student's prediction on the labelled source, a `TargetTerm` runs the student
on the unlabelled target. A term owns its projection head or frozen encoder: these are trained and
checkpointed with the run, but never part of the saved segmenter.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from pipa.batch import Batch, Labelled
from pipa.classes import LabelSpace
from pipa.errors import PipaError, at_least
from pipa.losses.cross_entropy import cross_entropy
from pipa.losses.info_nce import at_least_float32
from pipa.models.segmenter import Output, Prediction, Segmenter
from pipa.uda.pseudo import Pseudo
from pipa.uda.terms.pair import PairPass


class Given(NamedTuple):
    """The input of a target term in one step."""

    student: Segmenter
    batch: Batch
    pseudo: Pseudo | None = None
    """The teacher's labels of the target; None in a method without a teacher."""
    generator: Generator | None = None
    """Decides every draw of the term, on the student's device; None: torch's global one."""
    pair: PairPass | None = None
    """The student's pass over the pair, if other terms look at it, too."""

    def pair_pass(self) -> PairPass:
        """Return the student's pass over the pair: the shared one, or one of the term's own."""
        if self.pair is not None:
            return self.pair
        assert self.batch.pair is not None, "the data yield pairs to a method that needs them"
        return PairPass(self.student, self.batch.pair, self.generator)


class Term(nn.Module, ABC):
    """A named loss with a weight that may start late, warm up linearly, and fall again.

    Args:
        weight: Factor in the total loss, at least 0.
        start: First step (0-based) at which it counts.
        warm_up: Steps over which the weight grows linearly to `weight`.
        decay: Steps after that over which it falls linearly to 0; 0: it stays.

    Raises:
        PipaError: An argument is below 0, or the class has no `name`.
    """

    name: str
    """Name of its logged loss and of its section in an experiment file."""
    needs_target = False
    """Whether it uses target images (`batch.target`)."""
    needs_pair = False
    """Whether it uses two overlapping crops of them (`batch.pair`)."""
    needs_teacher = False
    """Whether it learns from the labels of the method's teacher."""
    needs_pretrained = False
    """Whether it makes sense only for a pretrained encoder that is trained further."""
    needs_things = False
    """Whether it must know which classes are things (`LabelSpace.things`)."""

    def __init__(self, weight: float, start: int = 0, warm_up: int = 0, decay: int = 0) -> None:
        super().__init__()
        if not isinstance(getattr(self, "name", None), str):
            raise PipaError("has no name", type(self).__name__, 'Write `name = "mirror"` in it.')
        given = {"weight": weight, "start": start, "warm_up": warm_up, "decay": decay}
        for name, value in given.items():
            at_least(0, value, f"{self.name}.{name}")
        self.weight, self.start, self.warm_up, self.decay = weight, start, warm_up, decay

    def weight_at(self, step: int) -> float:
        """Return the factor at this step: 0 before `start`, `weight` between warm-up and decay."""
        since = step - self.start
        if since < 0:
            return 0.0
        grown = min(1.0, (since + 1) / max(1, self.warm_up))
        fallen = max(0, since + 1 - max(1, self.warm_up)) / self.decay if self.decay else 0.0
        return self.weight * grown * max(0.0, 1 - fallen)

    def prepare(self, student: Segmenter) -> None:  # most terms have nothing to build
        """Build the parts that depend on the student; called once, before training."""


AnyTerm = TypeVar("AnyTerm", bound=Term)
Images = Literal["source", "mixed"]


class SourceTerm(Term):
    """A loss on the student's prediction for labelled source images."""

    images: Images = "source"
    """The images that it sees: the source, or the mixed ones of a method with a teacher, where the
    labels of target pixels that are not sure are 255."""

    @abstractmethod
    def forward(
        self, prediction: Prediction, source: Labelled, generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """Return the loss, not yet weighted."""


class TargetTerm(Term):
    """A loss that runs the student on target images."""

    needs_target = True

    @abstractmethod
    def forward(self, given: Given) -> Float[Tensor, ""]:
        """Return the loss, not yet weighted."""


def prepared(terms: Sequence[Term], student: Segmenter) -> nn.ModuleList:
    """Build the terms of a method; each needs a unique name, by which its loss is logged.

    Raises:
        PipaError: Two have one name.
    """
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        problem = f"each term needs a name of its own, got {', '.join(names)}"
        raise PipaError(problem, "--method.terms", "Give yours another name.")
    for term in terms:
        term.prepare(student)
    return nn.ModuleList(terms)


def refuse_teachers(terms: Sequence[Term]) -> None:
    """Refuse terms that need a teacher, for methods without one.

    Raises:
        PipaError: A term needs a teacher.
    """
    for term in terms:
        if term.needs_teacher:
            raise PipaError(
                "learns from a teacher's labels, and the method has no teacher",
                f"term {term.name}",
                "Leave it out, or take a method with a teacher: daformer, dacs, mic, pipa"
                " (of MIC alone: --masked.teacher own).",
            )


def active(terms: Sequence[AnyTerm], step: int) -> list[tuple[AnyTerm, float]]:
    """Return the terms that count at this step, each with its weight."""
    weights = [(term, term.weight_at(step)) for term in terms]
    return [(term, weight) for term, weight in weights if weight]


def source_losses(
    prediction: Prediction,
    source: Labelled,
    terms: Sequence[SourceTerm],
    step: int,
    generator_of: Callable[[str], Generator],
) -> dict[str, Float[Tensor, ""]]:
    """Return `L_ce^S` and the source terms, weighted, by name, for one student pass.

    Args:
        prediction: The student's prediction for the source.
        source: The source images and their labels.
        terms: The source terms.
        step: The number of the step.
        generator_of: From the name of a term to its generator.
    """
    losses = {"source": supervised(prediction, source.label)}
    return losses | seen_losses(prediction, source, "source", terms, step, generator_of)


def seen_losses(
    prediction: Prediction,
    seen: Labelled,
    images: Images,
    terms: Sequence[SourceTerm],
    step: int,
    generator_of: Callable[[str], Generator],
) -> dict[str, Float[Tensor, ""]]:
    """Return the source terms that look at these images, weighted, by name."""
    return {
        term.name: weight * term(prediction, seen, generator_of(term.name))
        for term, weight in active(terms, step)
        if term.images == images
    }


def target_losses(
    student: Segmenter,
    batch: Batch,
    pseudo: Pseudo | None,
    terms: Sequence[TargetTerm],
    step: int,
    generator_of: Callable[[str], Generator],
) -> Iterator[dict[str, Float[Tensor, ""]]]:
    """Yield the target terms, weighted, by name: those of one student pass at a time.

    Terms that look at the pair share their pass. The caller runs backward before it asks for the
    next pass, so that only one is in memory.

    Args:
        student: The student.
        batch: The batch, with what the terms need.
        pseudo: The teacher's labels; None: the method has no teacher.
        terms: The target terms.
        step: The number of the step.
        generator_of: From the name of a term to its generator.
    """
    later = active(terms, step)
    for term, weight in later:
        if not term.needs_pair:
            given = Given(student, batch, pseudo, generator_of(term.name))
            yield {term.name: weight * term(given)}
    paired = [(term, weight) for term, weight in later if term.needs_pair]
    if paired:
        assert batch.pair is not None, "the data yield pairs to a method that needs them"
        draws = {term.name: generator_of(term.name) for term, _ in paired}
        seen = PairPass(student, batch.pair, generator_of("pair"), decode=len(paired) > 1)
        yield {
            term.name: weight * term(Given(student, batch, pseudo, draws[term.name], seen))
            for term, weight in paired
        }


def total(losses: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """Return the sum of losses."""
    return torch.stack(list(losses.values())).sum()


def supervised(
    prediction: Prediction,
    label: Int[Tensor, "b h w"],
    weight: Float[Tensor, "b h w"] | None = None,
    spared: Bool[Tensor, "b k h w"] | None = None,
) -> Float[Tensor, ""]:
    """Cross entropy of all outputs with the labels of their boxes: `L_ce^S`, `L_ce^T`."""
    total = torch.zeros((), device=label.device)
    for output in prediction.outputs:
        at = None if weight is None else weight[:, *output.box]
        free = None if spared is None else spared[:, :, *output.box]
        loss = cross_entropy(upsampled(output), label[:, *output.box], at, free)
        total = total + output.weight * loss
    return total


def upsampled(output: Output) -> Float[Tensor, "b k _ _"]:
    """Return logits at the size of their box, in float32 even under autocast."""
    rows, columns = output.box
    size = (rows.stop - rows.start, columns.stop - columns.start)
    return F.interpolate(at_least_float32(output.logits), size, mode="bilinear")


def reason_against(
    term: Term, student: Segmenter, labels: LabelSpace, *, pretrained: bool
) -> str | None:
    """Explain why a term makes no sense for this student and these classes; None if it does."""
    if term.needs_pretrained and not pretrained:
        return "it needs a pretrained encoder, and the student's has random weights"
    if term.needs_pretrained and getattr(student.backbone, "frozen", False):
        return "it keeps the encoder close to its start, and the encoder is frozen"
    if term.needs_things and not labels.things:
        return (
            "nobody says which classes are things; give their ids in --feature_distance.classes, "
            "or `cityscapes: [ids]` in classes.yaml"
        )
    return None
