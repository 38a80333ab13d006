"""PiPa's patch term: a place seen in two overlapping crops keeps its feature, on the target.

The arithmetic is in `losses.patch_contrast`.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pipa.batch import IGNORE_INDEX
from pipa.errors import at_least
from pipa.losses.patch_contrast import align, patch_contrast
from pipa.models.segmenter import Segmenter
from pipa.uda.augment import jitter_and_blur
from pipa.uda.teacher import Pseudo
from pipa.uda.terms.base import Given, TargetTerm
from pipa.uda.terms.projection import Projection, at_centres, check_width, projection_for


class PatchTerm(TargetTerm):
    """PiPa's `L_Patch`: a place seen in two overlapping crops keeps its feature, on the target.

    Chen, Zheng, Yang, Chua: PiPa (ACM MM 2023, arXiv 2211.07609).

    Both crops go through the student, each with its own colours and mirroring. Pseudo-classes and
    confidences are the teacher's if it has labelled the pair, else those of the student's decoder.

    Args:
        weight: beta of the paper (0.1).
        temperature: tau (0.1 in the release).
        threshold: Minimum confidence of the surer crop (0.9 in the release).
        queries: Places per step and direction (release: 1600 negatives per crop).
        memory: Rows of earlier steps that serve as negatives (release: three steps).
        balanced: Fill that bank with equally many rows of each pseudo-class, if a step has them,
            instead of at random: semantic-aware, after the abstract of PiPa++ (arXiv 2407.17101).
        width: Width of the projection head.
        dim: Length of an embedding (release: 128).
        jitter: Colour jitter and blur, drawn for each crop.
        start: First step at which it counts (release: 10 000).
        warm_up: Steps of linear growth of the weight.

    Raises:
        PipaError: `width` is not a multiple of 8, or `memory` is below 0.

    Example:
        >>> student = pipa.create_segmenter("small", num_classes=5)
        >>> term = pipa.PatchTerm(width=64, queries=200, memory=600)
        >>> term.prepare(student)  # its projection head exists from here on: for the optimiser
        >>> photo, seen = torch.rand(1, 3, 96, 128), torch.ones(1, 64, 96, dtype=torch.bool)
        >>> pair = pipa.CropPair(  # two crops of 64x96, the second 16 rows and 24 columns further
        ...     first=pipa.Unlabelled(photo[:, :, :64, :96], seen),
        ...     second=pipa.Unlabelled(photo[:, :, 16:80, 24:120], seen),
        ...     shift=torch.tensor([[16, 24]]),
        ...     flipped=torch.tensor([[False, False]]),
        ... )
        >>> images, labels = torch.rand(2, 3, 64, 96), torch.randint(5, (2, 64, 96))
        >>> batch = pipa.Batch(pipa.Labelled(images, labels), pair=pair)
        >>> loss = term(pipa.Given(student, batch))
        >>> (term.weight * loss).backward()
    """

    name = "patch"
    needs_pair = True
    bank: Tensor
    bank_label: Tensor

    def __init__(
        self,
        *,
        weight: float = 0.1,
        temperature: float = 0.1,
        threshold: float = 0.9,
        queries: int = 1600,
        memory: int = 4800,
        balanced: bool = False,
        width: int = 256,
        dim: int = 128,
        jitter: bool = True,
        start: int = 0,
        warm_up: int = 0,
    ) -> None:
        super().__init__(weight, start, warm_up)
        check_width(width, dim, "patch")
        at_least(1, queries, "patch.queries")
        at_least(0, memory, "patch.memory")
        self.temperature, self.threshold, self.queries = temperature, threshold, queries
        self.balanced, self.width, self.dim, self.jitter = balanced, width, dim, jitter
        self.head: Projection | None = None
        self.register_buffer("bank", torch.zeros(memory, dim))
        self.register_buffer("bank_label", torch.full((memory,), IGNORE_INDEX))

    def prepare(self, student: Segmenter) -> None:
        """Build the projection head h_patch; empty the bank."""
        self.head = Projection(student.backbone.channels, self.width, self.dim)
        self.bank.zero_()
        self.bank_label.fill_(IGNORE_INDEX)

    def forward(self, given: Given) -> Float[Tensor, ""]:
        """Return the loss of one batch; 0 with a gradient path if no place is confident."""
        pair, generator = given.batch.pair, given.generator
        assert pair is not None, "the data yield pairs to a method that needs them"
        image = torch.cat([pair.first.image, pair.second.image])
        if self.jitter:
            image = jitter_and_blur(image, generator)
        features, label, confidence = look_at_pair(given.student, image, given.pseudo)
        head = self.head = self.head or projection_for(features, self.width, self.dim)
        embedding = head(features)

        grid = embedding.shape[-2:]
        valid = at_centres(torch.cat([pair.first.valid, pair.second.valid]), grid)
        label = at_centres(label, grid).masked_fill(~valid, IGNORE_INDEX)
        confidence = at_centres(confidence, grid).masked_fill(~valid, 0.0)

        # Rows are places of both crops, the second moved to the first one's grid, so that the same
        # index is the same place. Places outside of the overlap have no confidence: no positive.
        first, second = embedding.chunk(2)
        planes = torch.stack([label.float(), confidence], dim=1).chunk(2)
        shift = (pair.shift * (grid[0] / image.shape[-2])).round().long()
        moved, seen = align(torch.cat([second, planes[1]], dim=1), shift, pair.flipped)
        known = (torch.cat([first, planes[0]], dim=1), moved)
        here, there = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in known)
        better, worse = (
            choose(here[:, -1], there[:, -1]) for choose in (torch.maximum, torch.minimum)
        )
        useful = seen.flatten() & (better > self.threshold) & (worse > 0)  # 0 where not valid
        chosen = pick(useful, self.queries, generator)
        here, there = here[chosen], there[chosen]
        sure = useful[chosen]

        places = embedding.permute(0, 2, 3, 1).flatten(0, 2).detach()
        others = pick(valid.flatten(), 2 * self.queries, generator)
        negative, negative_label = places[others], label.flatten()[others]
        loss = patch_contrast(
            here[:, :-2],
            there[:, :-2],
            torch.cat([negative, self.bank]),
            here[:, -2].long(),
            there[:, -2].long(),
            torch.cat([negative_label, self.bank_label]),
            here[:, -1] * sure,
            there[:, -1] * sure,
            temperature=self.temperature,
            threshold=self.threshold,
        )
        if self.balanced:
            evenly = pick_evenly(label.flatten(), 2 * self.queries, generator)
            negative, negative_label = places[evenly], label.flatten()[evenly]
        self._update_bank(negative, negative_label)
        return loss

    def _update_bank(self, rows: Float[Tensor, "m d"], label: Int[Tensor, " m"]) -> None:
        """Push the first of these rows, up to a third of the bank; the oldest rows leave."""
        count = min(len(self.bank) // 3, len(rows))
        if count:
            self.bank = torch.cat([rows[:count], self.bank[:-count]])
            self.bank_label = torch.cat([label[:count], self.bank_label[:-count]])


def look_at_pair(
    student: Segmenter, image: Float[Tensor, "b 3 h w"], pseudo: Pseudo | None
) -> tuple[list[Tensor], Int[Tensor, "b _ _"], Float[Tensor, "b _ _"]]:
    """Return the student's features of both crops, and class and confidence of their pixels.

    The classes are the teacher's if it has labelled the pair, else those of the student's decoder.
    """
    if pseudo is not None and pseudo.pair is not None:
        label = torch.cat([crop.label for crop in pseudo.pair])
        confidence = torch.cat([crop.confidence for crop in pseudo.pair])
        return student.context(image).features, label, confidence
    prediction = student.analyse(image)
    whole = prediction.outputs[0].logits.detach().float().softmax(dim=1)
    confidence, label = whole.max(dim=1)
    return prediction.context.features, label, confidence


def pick(wanted: Bool[Tensor, " n"], count: int, generator: Generator | None) -> Int[Tensor, " m"]:
    """Draw indices of at most `count` rows at random, wanted ones first."""
    key = torch.rand(len(wanted), generator=generator, device=wanted.device) - wanted.float()
    return key.topk(min(count, len(wanted)), largest=False).indices


def pick_evenly(
    label: Int[Tensor, " n"], count: int, generator: Generator | None
) -> Int[Tensor, " m"]:
    """Draw indices of at most `count` rows, one of each class in turn, at random within a class.

    Every prefix of them is as even over the classes as possible; rows of 255 come last.
    """
    order = torch.rand(len(label), generator=generator, device=label.device).argsort()
    order = order[label[order].argsort(stable=True)]
    size = torch.zeros(IGNORE_INDEX + 1, dtype=torch.long, device=label.device)
    size.scatter_add_(0, label, torch.ones_like(label))
    turn = torch.arange(len(label), device=label.device) - (size.cumsum(0) - size)[label[order]]
    turn = turn.masked_fill(label[order] == IGNORE_INDEX, len(label))
    return order[turn.argsort(stable=True)[:count]]
