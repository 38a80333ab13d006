"""PiPa's patch term: a place seen in two overlapping crops keeps its feature, on the target.

The arithmetic is in `losses.patch_contrast`.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pipa.batch import IGNORE_INDEX, CropPair
from pipa.errors import above_zero, at_least, from_0_to_1
from pipa.losses.patch_contrast import NegativesOf, align, patch_contrast
from pipa.models.segmenter import Segmenter
from pipa.uda.processes import in_turn
from pipa.uda.pseudo import Pseudo, class_medians
from pipa.uda.terms.base import Given, TargetTerm
from pipa.uda.terms.pair import PairPass
from pipa.uda.terms.projection import (
    Maps,
    Projection,
    at_centres,
    channels_of,
    check_width,
    maps_of,
    projection_for,
)


class PatchTerm(TargetTerm):
    """PiPa's `L_Patch`: a place seen in two overlapping crops keeps its feature, on the target.

    Chen, Zheng, Yang, Chua: PiPa (ACM MM 2023, arXiv 2211.07609).

    Both crops go through the student, each with its own colours and mirroring. Pseudo-classes and
    confidences are the teacher's if it has labelled the pair, else those of the student's decoder.
    Where each crop has labels of its own, the less sure one learns, as in the release; where both
    lie in the target crop and have its labels, each learns from the other.

    The options that the paper has not showed no gain over the defaults in training on Streets (one
    seed each; docs/results.md, Variants).

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
        start: First step at which it counts (release: 10 000).
        warm_up: Steps of linear growth of the weight.
        maps: "encoder", the backbone's maps, as the paper; "decoder", the map below the
            classifier, as the release's DAFormer variant (there at stride 8, after pooling). On
            Streets its gradient agreed best with that of true labels early on (cosine 0.08, the
            encoder's 0.03), and not at the end (-0.01).
        per_class: A crop is also sure of the surer half of each class's cells (CBST, Zou et al.,
            ECCV 2018), so that rare classes get queries: without it person, rider, wall, fence and
            bicycle had under 0.1 % of them each on Streets.
        sure_negatives: Only cells of which a crop is sure repel; below the threshold the label is
            often wrong. On Streets negatives of the query's own class carried 27 to 33 % of the
            repelling weight, and 14 to 18 % with this option.
        negatives_of: The crop whose label decides which rows repel, if the crops differ:
            "learner", as the release, or "surer". With a pair of other scales the learner's label
            was right at 47 % of the places on Streets, the surer one at 61 %. It changes nothing
            where both crops have the labels of the target crop: there each learns from the other.
        decay: Steps after the warm-up over which the weight falls to 0; 0: it stays. On Streets the
            gradient helped more at the start of adaptation (cosine 0.03) than at its end (0.01).

    Raises:
        PipaError: `width` or `queries` is below 1, `memory` is below 0, `temperature` is not above
            0, `threshold` is not in [0, 1], or the decoder has no map.

    Examples:
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
        start: int = 0,
        warm_up: int = 0,
        maps: Maps = "encoder",
        per_class: bool = False,
        sure_negatives: bool = False,
        negatives_of: NegativesOf = "learner",
        decay: int = 0,
    ) -> None:
        super().__init__(weight, start, warm_up, decay)
        check_width(width, dim, "patch")
        at_least(1, queries, "patch.queries")
        at_least(0, memory, "patch.memory")
        above_zero(temperature, "patch.temperature")
        from_0_to_1(threshold, "patch.threshold")
        self.temperature, self.threshold, self.queries = temperature, threshold, queries
        self.balanced, self.width, self.dim = balanced, width, dim
        self.maps: Maps = maps
        self.per_class, self.sure_negatives = per_class, sure_negatives
        self.negatives_of: NegativesOf = negatives_of
        self.head: Projection | None = None
        self.register_buffer("bank", torch.zeros(memory, dim))
        self.register_buffer("bank_label", torch.full((memory,), IGNORE_INDEX))

    def prepare(self, student: Segmenter) -> None:
        """Build the projection head h_patch; empty the bank."""
        channels = channels_of(student, self.maps, "patch")
        self.head = Projection(channels, self.width, self.dim)
        self.bank.zero_()
        self.bank_label.fill_(IGNORE_INDEX)

    def forward(self, given: Given) -> Float[Tensor, ""]:
        """Return the loss of one batch; 0 with a gradient path if no place is confident."""
        seen, generator = given.pair_pass(), given.generator
        label, confidence = labels_of_pair(seen, given.pseudo)
        view = seen.view if self.maps == "encoder" else seen.prediction.context
        features = maps_of(view, self.maps)
        grid = features[0].shape[-2], features[0].shape[-1]
        places = match(seen.pair, label, confidence, grid)

        certain = places.confidence > self.threshold
        if self.per_class:
            certain |= places.confidence >= class_medians(
                places.confidence, places.label, places.valid, given.student.num_classes
            )
        useful = places.useful(certain)
        here = pick(useful, self.queries, generator)
        there, sure = places.partner[here], useful[here]
        repel = places.valid & certain if self.sure_negatives else places.valid
        repelling = places.label.where(repel, IGNORE_INDEX)
        others = pick(repel, 2 * self.queries, generator)
        evenly = pick_evenly(repelling, 2 * self.queries, generator) if self.balanced else others
        head = self.head = self.head or projection_for(features, self.width, self.dim)
        rows = head(features, torch.cat([here, there, others]))
        first, second, negative = rows.split([len(here), len(there), len(others)])
        loss = patch_contrast(
            first,
            second,
            torch.cat([in_turn(negative), self.bank]),
            places.label[here],
            places.label[there],
            torch.cat([in_turn(repelling[others]), self.bank_label]),
            places.confidence[here] * sure,
            places.confidence[there] * sure,
            temperature=self.temperature,
            threshold=0.0,  # only sure places are left
            negatives_of=self.negatives_of,
            mutual=seen.pair.corner is not None and given.pseudo is not None,
        )
        with torch.no_grad():
            kept = head(features, evenly) if self.balanced else negative.detach()
        self._update_bank(in_turn(kept), in_turn(repelling[evenly]))
        return loss

    def _update_bank(self, rows: Float[Tensor, "m d"], label: Int[Tensor, " m"]) -> None:
        """Push the first of these rows, up to a third of the bank; the oldest rows leave."""
        count = min(len(self.bank) // 3, len(rows))
        if count:
            self.bank = torch.cat([rows[:count], self.bank[:-count]])
            self.bank_label = torch.cat([label[:count], self.bank_label[:-count]])


def labels_of_pair(
    seen: PairPass, pseudo: Pseudo | None
) -> tuple[Int[Tensor, "b _ _"], Float[Tensor, "b _ _"]]:
    """Return class and confidence of the pixels of both crops.

    They are the teacher's if it has labelled the pair, else those of the student's decoder.
    """
    if pseudo is not None and pseudo.pair is not None:
        label = torch.cat([crop.label for crop in pseudo.pair])
        return label, torch.cat([crop.confidence for crop in pseudo.pair])
    whole = seen.prediction.outputs[0].logits.detach().float().softmax(dim=1)
    confidence, label = whole.max(dim=1)
    return label, confidence


class Places(NamedTuple):
    """The cells of both crops on a grid, flattened: `n = 2 b h w`, the first crops' cells first."""

    label: Int[Tensor, " n"]
    """The class of each cell; 255 where it is not valid."""
    confidence: Float[Tensor, " n"]
    """The confidence of each cell; 0 where it is not valid."""
    valid: Bool[Tensor, " n"]
    partner: Int[Tensor, " half"]
    """For each cell of the first crops, the cell of the second ones that shows the same place."""
    shared: Bool[Tensor, " half"]
    """Whether there is such a cell."""

    def useful(self, certain: Bool[Tensor, " n"]) -> Bool[Tensor, " half"]:
        """Return the shared places, valid in both crops, of which one crop is certain."""
        here, there = slice(len(self.partner)), self.partner
        seen = torch.minimum(self.confidence[here], self.confidence[there]) > 0
        return self.shared & seen & (certain[here] | certain[there])


def match(
    pair: CropPair,
    label: Int[Tensor, "b _ _"],
    confidence: Float[Tensor, "b _ _"],
    grid: tuple[int, int],
) -> Places:
    """Bring labels to the grid of the features; find the cells of both crops that are one place.

    Where the pair has flow, a place is what moves with it.
    """
    valid = at_centres(torch.cat([pair.first.valid, pair.second.valid]), grid)
    label = at_centres(label, grid).masked_fill(~valid, IGNORE_INDEX)
    confidence = at_centres(confidence, grid).masked_fill(~valid, 0.0)
    half = label.numel() // 2
    cell = torch.arange(half, 2 * half, device=label.device).view(-1, 1, *grid)
    shift = (pair.shift * (grid[0] / pair.first.image.shape[-2])).round().long()
    flow = None
    if pair.flow is not None:
        flow = torch.stack([at_centres(plane, grid) for plane in pair.flow.unbind(dim=1)], dim=1)
        flow = flow * (grid[0] / pair.first.image.shape[-2])
    partner, shared = align(cell, shift, pair.flipped, flow)
    flat = label.flatten(), confidence.flatten(), valid.flatten()
    return Places(*flat, partner.flatten(), shared.flatten())


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
