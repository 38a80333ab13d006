"""Terms that need no labels of the target: entropy, and the game with a discriminator.

The arithmetic is in `losses.entropy` and `losses.adversarial`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pipa.batch import Batch, Labelled
from pipa.losses.adversarial import taken_for
from pipa.losses.entropy import entropy, weighted_self_information
from pipa.losses.info_nce import at_least_float32
from pipa.models.discriminator import Discriminator
from pipa.models.segmenter import Output, Prediction, Segmenter
from pipa.uda.teacher import Pseudo
from pipa.uda.terms import SourceTerm, TargetTerm

Shown = Callable[[Tensor], Tensor]
"""From logits `b k h w` to what a discriminator sees of them, of the same shape."""


class EntropyTerm(TargetTerm):
    """MinEnt's `L_ent`: the student shall be sure of the target, whatever of.

    Vu et al., ADVENT (CVPR 2019). The mean over all pixels of the target as it is, without jitter.

    Args:
        weight: lambda_ent (0.001).
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
    """

    name = "entropy"

    def __init__(self, *, weight: float = 0.001, start: int = 0, warm_up: int = 0) -> None:
        super().__init__(weight, start, warm_up)

    def prepare(self, student: Segmenter) -> None:
        """Nothing to build."""

    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo | None,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Mean entropy of every output, by its share."""
        assert batch.target is not None
        outputs = student.analyse(batch.target.image).outputs
        each = [output.weight * entropy(upsampled(output)).mean() for output in outputs]
        return torch.stack(each).sum()


def adversarial_terms(
    discriminator: Discriminator,
    *,
    shown: Shown = weighted_self_information,
    weight: float = 0.001,
    start: int = 0,
    warm_up: int = 0,
) -> tuple[SourceTerm, tuple[TargetTerm, TargetTerm]]:
    """The source term, and the target terms in their order, of one game with a discriminator.

    ADVENT (Vu et al., CVPR 2019), or AdaptSegNet (Tsai et al., CVPR 2018), single level. Three
    terms, because `weight` is the student's alone: each half of the discriminator's `L_d` counts
    by 1/2, and is logged by a name of its own.

    Args:
        discriminator: Which is taught as the student is.
        shown: What it sees of a prediction: `losses.entropy.weighted_self_information` (ADVENT) or
            `losses.adversarial.probability` (AdaptSegNet).
        weight: lambda_adv of the student's loss, above 0 (0.001 in both papers).
        start: First step of the game.
        warm_up: Steps over which the student's weight grows; the discriminator has none.
    """
    game = Game(discriminator, shown)
    fool = AdversarialTerm(game, weight=weight, start=start, warm_up=warm_up)
    return SourceHalf(game, start=start), (fool, TargetHalf(game, start=start))


class Game(nn.Module):
    """What the terms of one game share.

    Args:
        discriminator: The student's opponent; one for all outputs.
        shown: What it sees of logits.
    """

    left: list[tuple[Tensor, float]] | None
    """What the student has shown of the target in this step, for the discriminator to learn."""

    def __init__(self, discriminator: Discriminator, shown: Shown) -> None:
        super().__init__()
        self.discriminator, self.shown, self.left = discriminator, shown, None

    def show(self, prediction: Prediction) -> list[tuple[Tensor, float]]:
        """Maps `b k h w` at the size of their boxes, and the share of each."""
        return [(self.shown(upsampled(output)), output.weight) for output in prediction.outputs]

    def fool(self, maps: list[tuple[Tensor, float]]) -> Float[Tensor, ""]:
        """The student's loss, `L_adv`; to it the discriminator is a constant."""
        constant = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        each = [
            share * taken_for(functional_call(self.discriminator, constant, (seen,)), source=True)
            for seen, share in maps
        ]
        return torch.stack(each).sum()

    def teach(self, maps: list[tuple[Tensor, float]], *, source: bool) -> Float[Tensor, ""]:
        """The discriminator's loss on one domain, half of `L_d`; to it the student is constant."""
        each = [
            share * taken_for(self.discriminator(seen.detach()), source=source) / 2
            for seen, share in maps
        ]
        return torch.stack(each).sum()


class SourceHalf(SourceTerm):
    """Teaches the discriminator what predictions for the source look like: half of `L_d`.

    Args:
        game: Shared with the other two terms.
        start: First step at which it counts.
    """

    name = "discriminator_source"

    def __init__(self, game: Game, *, start: int = 0) -> None:
        super().__init__(1.0, start)
        self.game = game

    def prepare(self, student: Segmenter) -> None:
        """Nothing to build."""

    def forward(
        self, prediction: Prediction, source: Labelled, generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """Loss of taking the source for the target."""
        with torch.no_grad():
            maps = self.game.show(prediction)
        return self.game.teach(maps, source=True)


class AdversarialTerm(TargetTerm):
    """The student's `L_adv`: the discriminator shall take target for source.

    Args:
        game: Shared with the other two terms.
        weight: lambda_adv.
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
    """

    name = "adversarial"

    def __init__(
        self, game: Game, *, weight: float = 0.001, start: int = 0, warm_up: int = 0
    ) -> None:
        super().__init__(weight, start, warm_up)
        self.game = game

    def prepare(self, student: Segmenter) -> None:
        """Nothing to build."""

    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo | None,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of not being taken for the source; leaves what it showed to `TargetHalf`."""
        assert batch.target is not None
        maps = self.game.show(student.analyse(batch.target.image))
        self.game.left = [(seen.detach(), share) for seen, share in maps]
        return self.game.fool(maps)


class TargetHalf(TargetTerm):
    """Teaches the discriminator what predictions for the target look like: half of `L_d`.

    It learns from the student's pass of `AdversarialTerm`, after which it comes.

    Args:
        game: Shared with the other two terms.
        start: First step at which it counts.
    """

    name = "discriminator_target"

    def __init__(self, game: Game, *, start: int = 0) -> None:
        super().__init__(1.0, start)
        self.game = game

    def prepare(self, student: Segmenter) -> None:
        """Nothing to build."""

    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo | None,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of taking the target for the source."""
        maps, self.game.left = self.game.left, None
        assert maps is not None, "AdversarialTerm comes first, in the same step"
        return self.game.teach(maps, source=False)


def upsampled(output: Output) -> Float[Tensor, "b k _ _"]:
    """Logits at the size of their box, as AdaptSegNet and ADVENT look at them."""
    rows, columns = output.box
    size = (rows.stop - rows.start, columns.stop - columns.start)
    return F.interpolate(at_least_float32(output.logits), size, mode="bilinear")
