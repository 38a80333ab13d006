"""PiPa's two terms: what pixels of the source, and places of the target, must have in common.

Each owns its projection head, which is trained and checkpointed with the run, and thrown away with
it. The arithmetic is in `losses.pixel_contrast` and `losses.patch_contrast`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from pipa.batch import IGNORE_INDEX, Batch, Labelled
from pipa.losses.patch_contrast import align, patch_contrast
from pipa.losses.pixel_contrast import contrast_anchors, first_of_each, sample_anchors
from pipa.models.segmenter import Prediction, Segmenter
from pipa.uda.augment import jitter_and_blur
from pipa.uda.teacher import Pseudo
from pipa.uda.terms import SourceTerm, TargetTerm


class PixelTerm(SourceTerm):
    """PiPa's `L_Pixel`: pixels of one class attract, of other classes repel, on the source.

    Chen, Zheng, Yang, Chua: PiPa (ACM MM 2023, arXiv 2211.07609).

    Args:
        weight: alpha of the paper (0.1).
        temperature: tau (0.1 in the release).
        anchors: Anchors of one step at most (release: 1024).
        per_class: Anchors of one class of one image at most (release: 100).
        sampling: "hard": half of the anchors where the student's decoder is wrong;
            "random": anywhere in the class.
        similarity: Share of the least similar positives and of the most similar negatives that
            count for an anchor; 0.1 is the paper's rule, None takes all.
        memory: Rows of each class kept from earlier steps as further positives and negatives, the
            oldest leave: a semantic-aware memory bank, after the abstract of PiPa++ (arXiv
            2407.17101); how it is filled is our choice. 0: none, as PiPa.
        width: Width of the projection head (release: 1024).
        dim: Length of an embedding (release: 256).
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
    """

    name = "pixel"
    bank: Tensor | None
    bank_label: Tensor | None

    def __init__(
        self,
        *,
        weight: float = 0.1,
        temperature: float = 0.1,
        anchors: int = 1024,
        per_class: int = 100,
        sampling: Literal["hard", "random"] = "hard",
        similarity: float | None = None,
        memory: int = 0,
        width: int = 256,
        dim: int = 256,
        start: int = 0,
        warm_up: int = 0,
    ) -> None:
        super().__init__(weight, start, warm_up)
        self.temperature, self.anchors, self.per_class = temperature, anchors, per_class
        self.sampling, self.similarity, self.memory = sampling, similarity, memory
        self.width, self.dim = width, dim
        self.head: Projection | None = None
        self.register_buffer("bank", None)  # made where the number of classes is known
        self.register_buffer("bank_label", None)

    def prepare(self, student: Segmenter) -> None:
        """Build the projection head h_pixel and the empty bank."""
        self.head = Projection(student.backbone.channels, self.width, self.dim)
        self._make_bank(student.num_classes, student.mean.device)

    def forward(
        self, prediction: Prediction, source: Labelled, generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """The loss of one batch; 0 with a gradient path where nothing can be contrasted."""
        view = prediction.detail
        head = self.head = self.head or projection_for(view.features, self.width, self.dim)
        embedding = head(view.features)
        label = at_centres(source.label[:, *view.box], embedding.shape[-2:])
        guess = None
        if self.sampling == "hard":
            sharpest = prediction.outputs[-1]  # the output of the detail's box
            guess = F.interpolate(sharpest.logits.detach(), label.shape[-2:], mode="bilinear")
            guess = guess.argmax(1)
        num_classes = prediction.outputs[0].logits.shape[1]
        chosen = sample_anchors(
            label,
            guess,
            num_classes=num_classes,
            per_class=self.per_class,
            total=self.anchors,
            generator=generator,
        )
        rows = embedding.permute(0, 2, 3, 1).flatten(0, 2)[chosen.index]
        if self.bank is None:
            self._make_bank(num_classes, rows.device)
        loss = contrast_anchors(
            rows,
            chosen.label,
            chosen.valid,
            bank=self.bank,
            bank_label=self.bank_label,
            temperature=self.temperature,
            similarity=self.similarity,
        )
        label = chosen.label.masked_fill(~chosen.valid, IGNORE_INDEX)
        self._remember(rows.detach(), label, num_classes, generator)
        return loss

    def _make_bank(self, num_classes: int, device: torch.device) -> None:
        if self.memory:
            rows = num_classes * self.memory
            self.bank = torch.zeros(rows, self.dim, device=device)
            self.bank_label = torch.full((rows,), IGNORE_INDEX, device=device)

    def _remember(
        self,
        rows: Float[Tensor, "n d"],
        label: Int[Tensor, " n"],
        num_classes: int,
        generator: Generator | None,
    ) -> None:
        """Keep the newest rows of each class; of one step's, where they are too many, any."""
        if self.bank is None or self.bank_label is None:
            return
        order = torch.rand(len(rows), generator=generator, device=rows.device).argsort()
        self.bank, self.bank_label = first_of_each(
            torch.cat([rows[order], self.bank]),
            torch.cat([label[order], self.bank_label]),
            num_classes,
            self.memory,
        )


class PatchTerm(TargetTerm):
    """PiPa's `L_Patch`: a place seen in two overlapping crops keeps its feature, on the target.

    Chen, Zheng, Yang, Chua: PiPa (ACM MM 2023, arXiv 2211.07609).

    Both crops go through the student, each with its own colours and mirroring. Pseudo-classes and
    confidences are the teacher's, where it has labelled the pair, else the student's own decoder's.

    Args:
        weight: beta of the paper (0.1).
        temperature: tau (0.1 in the release).
        threshold: Confidence that the better view must have (0.9 in the release).
        queries: Places per step and direction (release: 1600 negatives per view).
        memory: Rows of earlier steps that serve as negatives (release: three steps).
        balanced: Fill that bank with as many rows of each pseudo-class, as far as a step has them,
            instead of at random: semantic-aware, after the abstract of PiPa++ (arXiv 2407.17101).
        width: Width of the projection head.
        dim: Length of an embedding (release: 128).
        jitter: Colour jitter and blur, drawn for each view.
        start: First step at which it counts (release: 10 000).
        warm_up: Steps of linear growth of the weight.
    """

    name = "patch"
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
        self.temperature, self.threshold, self.queries = temperature, threshold, queries
        self.balanced, self.width, self.dim, self.jitter = balanced, width, dim, jitter
        self.head: Projection | None = None
        self.register_buffer("bank", torch.zeros(memory, dim))
        self.register_buffer("bank_label", torch.full((memory,), IGNORE_INDEX))

    def prepare(self, student: Segmenter) -> None:
        """Build the projection head h_patch; the bank is empty."""
        self.head = Projection(student.backbone.channels, self.width, self.dim)
        self.bank.zero_()
        self.bank_label.fill_(IGNORE_INDEX)

    def forward(
        self,
        student: Segmenter,
        batch: Batch,
        pseudo: Pseudo | None,
        generator: Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one batch; 0 with a gradient path where no place is confident."""
        pair = batch.pair
        assert pair is not None, "the data module makes pairs when `pair_crop` is set"
        image = torch.cat([pair.first.image, pair.second.image])
        if self.jitter:
            image = jitter_and_blur(image, generator)
        features, label, confidence = look_at_views(student, image, pseudo)
        head = self.head = self.head or projection_for(features, self.width, self.dim)
        embedding = head(features)

        grid = embedding.shape[-2:]
        valid = at_centres(torch.cat([pair.first.valid, pair.second.valid]), grid)
        label = at_centres(label, grid).masked_fill(~valid, IGNORE_INDEX)
        confidence = at_centres(confidence, grid).masked_fill(~valid, 0.0)

        # Channels-last rows of both views; the second moved to the first one's grid, so that the
        # same index is the same place. Where they do not overlap, no confidence: no positive.
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
        self._remember(negative, negative_label)
        return loss

    def _remember(self, rows: Float[Tensor, "m d"], label: Int[Tensor, " m"]) -> None:
        """Push the first of these rows, a third of the bank; the oldest rows leave."""
        count = min(len(self.bank) // 3, len(rows))
        if count:
            self.bank = torch.cat([rows[:count], self.bank[:-count]])
            self.bank_label = torch.cat([label[:count], self.bank_label[:-count]])


class Projection(nn.Module):
    """From the maps of a backbone to unit vectors at stride 4: 1x1 - norm - ReLU - 1x1.

    The first 1x1 convolution of the maps upsampled and concatenated, as the release has it
    (PiPa@encoder_decoder.py), is the sum of one convolution per map, taken before upsampling:
    the same function for a fraction of the memory.

    Args:
        channels: Channels of each map.
        width: Channels between the convolutions.
        dim: Length of a vector, d.
    """

    def __init__(self, channels: Sequence[int], width: int, dim: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.norm = nn.GroupNorm(8, width)
        self.leave = nn.Conv2d(width, dim, 1)

    def forward(self, features: list[Tensor]) -> Float[Tensor, "b d h w"]:
        """Embed the maps of one view; `h, w` are those of the first."""
        size = features[0].shape[-2:]
        mixed = self.enter[0](features[0])
        for enter, feature in zip(self.enter[1:], features[1:], strict=True):
            mixed = mixed + F.interpolate(enter(feature), size, mode="bilinear")
        return F.normalize(self.leave(F.relu(self.norm(mixed))).float(), dim=1)


def look_at_views(
    student: Segmenter, image: Float[Tensor, "b 3 h w"], pseudo: Pseudo | None
) -> tuple[list[Tensor], Int[Tensor, "b _ _"], Float[Tensor, "b _ _"]]:
    """The student's features of both views, and class and confidence of their pixels.

    These are the teacher's where it has labelled the pair, else the student's own decoder's.
    """
    if pseudo is not None and pseudo.pair is not None:
        label = torch.cat([view.label for view in pseudo.pair])
        confidence = torch.cat([view.confidence for view in pseudo.pair])
        return student.context(image).features, label, confidence
    prediction = student.analyse(image)
    whole = prediction.outputs[0].logits.detach().float().softmax(dim=1)
    confidence, label = whole.max(dim=1)
    return prediction.context.features, label, confidence


def at_centres(plane: Shaped[Tensor, "b H W"], grid: tuple[int, int]) -> Shaped[Tensor, "b h w"]:
    """The pixel at the centre of each cell of a grid over the whole plane (nearest neighbour)."""
    rows, columns = (
        (torch.arange(count, device=plane.device) * 2 + 1) * size // (2 * count)
        for count, size in zip(grid, plane.shape[-2:], strict=True)
    )
    return plane[:, rows[:, None], columns]


def pick(wanted: Bool[Tensor, " n"], count: int, generator: Generator | None) -> Int[Tensor, " m"]:
    """Indices of at most `count` rows, drawn at random: wanted ones first."""
    key = torch.rand(len(wanted), generator=generator, device=wanted.device) - wanted.float()
    return key.topk(min(count, len(wanted)), largest=False).indices


def pick_evenly(
    label: Int[Tensor, " n"], count: int, generator: Generator | None
) -> Int[Tensor, " m"]:
    """Indices of at most `count` rows, drawn at random within a class: one of each class in turn.

    Any first few of them are as even over the classes as can be; rows of 255 come last.
    """
    order = torch.rand(len(label), generator=generator, device=label.device).argsort()
    order = order[label[order].argsort(stable=True)]
    size = torch.zeros(IGNORE_INDEX + 1, dtype=torch.long, device=label.device)
    size.scatter_add_(0, label, torch.ones_like(label))
    turn = torch.arange(len(label), device=label.device) - (size.cumsum(0) - size)[label[order]]
    turn = turn.masked_fill(label[order] == IGNORE_INDEX, len(label))
    return order[turn.argsort(stable=True)[:count]]


def projection_for(features: list[Tensor], width: int, dim: int) -> Projection:
    """A head for these maps, where a term is used without `prepare`."""
    head = Projection([feature.shape[1] for feature in features], width, dim)
    return head.to(features[0].device)
