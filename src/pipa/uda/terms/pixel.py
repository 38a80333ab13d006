"""PiPa's pixel term: pixels of one class attract, of other classes repel, on the source.

The arithmetic is in `losses.pixel_contrast`.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from pipa.batch import IGNORE_INDEX, Labelled
from pipa.errors import PipaError, above_zero, at_least
from pipa.losses.pixel_contrast import contrast_anchors, first_of_each, sample_anchors
from pipa.models.segmenter import Prediction, Segmenter
from pipa.uda.processes import in_turn, of_others, process_count
from pipa.uda.terms.base import Images, SourceTerm
from pipa.uda.terms.projection import (
    Maps,
    Projection,
    at_centres,
    channels_of,
    check_width,
    maps_of,
    projection_for,
)


class PixelTerm(SourceTerm):
    """PiPa's `L_Pixel`: pixels of one class attract, of other classes repel, on the source.

    Chen, Zheng, Yang, Chua: PiPa (ACM MM 2023, arXiv 2211.07609). The options that the paper has
    not, and its rule of `similarity`, showed no gain over the defaults in training on Streets (one
    seed each; docs/results.md, Variants).

    Args:
        weight: alpha of the paper (0.1).
        temperature: tau (0.1 in the release).
        anchors: Maximum number of anchors in a step (release: 1024).
        per_class: Maximum number of anchors of a class in an image (release: 100).
        sampling: "hard": half of the anchors are pixels that the student's decoder gets wrong;
            "random": anchors are any pixels of the class.
        similarity: Share of the least similar positives and of the most similar negatives that
            count for an anchor; 0.1 is the paper's rule, None takes all, as the release. The rule
            doubled the norm of the gradient on Streets (0.48 of that of cross entropy, not 0.24).
        memory: Rows of each class kept from earlier steps as further positives and negatives; the
            oldest leave. A semantic-aware memory bank, after the abstract of PiPa++ (arXiv
            2407.17101); the rule that fills it is our choice. 0: none, as in PiPa.
        width: Width of the projection head (release: 1024).
        dim: Length of an embedding (release: 256).
        start: First step at which it counts.
        warm_up: Steps of linear growth of the weight.
        maps: "encoder", the backbone's maps, as the release; "decoder", the map below the
            classifier.
        images: "source", as the paper; "mixed": the mixed images of a method with a teacher, whose
            anchors are pasted source pixels and sure target pixels, which contrast together. On
            Streets the gradient of sure target places agreed with that of true labels (cosine
            0.04), that of the source's did not (-0.01).
        decay: Steps after the warm-up over which the weight falls to 0; 0: it stays.

    Raises:
        PipaError: `width`, `anchors` or `per_class` is below 1, `memory` is below 0, `temperature`
            is not above 0, `similarity` is not in (0, 1], or the decoder has no map.

    Examples:
        >>> student = pipa.create_segmenter("small", num_classes=5)
        >>> term = pipa.PixelTerm(width=64)
        >>> term.prepare(student)  # its projection head exists from here on: for the optimiser
        >>> images, labels = torch.rand(2, 3, 64, 96), torch.randint(5, (2, 64, 96))
        >>> loss = term(student.analyse(images), pipa.Labelled(images, labels))
        >>> (term.weight * loss).backward()
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
        maps: Maps = "encoder",
        images: Images = "source",
        decay: int = 0,
    ) -> None:
        super().__init__(weight, start, warm_up, decay)
        check_width(width, dim, "pixel")
        at_least(0, memory, "pixel.memory")
        at_least(1, anchors, "pixel.anchors")
        at_least(1, per_class, "pixel.per_class")
        above_zero(temperature, "pixel.temperature")
        if similarity is not None and not 0 < similarity <= 1:
            raise PipaError("must be above 0 and at most 1", "--pixel.similarity")
        self.temperature, self.anchors, self.per_class = temperature, anchors, per_class
        self.sampling, self.similarity, self.memory = sampling, similarity, memory
        self.width, self.dim = width, dim
        self.maps: Maps = maps
        self.images = images
        self.needs_teacher = images == "mixed"
        self.head: Projection | None = None
        self.register_buffer("bank", None)  # made when the number of classes is known
        self.register_buffer("bank_label", None)

    def prepare(self, student: Segmenter) -> None:
        """Build the projection head h_pixel and the empty bank."""
        channels = channels_of(student, self.maps, "pixel")
        self.head = Projection(channels, self.width, self.dim)
        self._make_bank(student.num_classes, student.mean.device)

    def forward(
        self, prediction: Prediction, source: Labelled, generator: Generator | None = None
    ) -> Float[Tensor, ""]:
        """Return the loss of one batch; 0 with a gradient path if nothing can be contrasted."""
        view = prediction.detail
        features = maps_of(view, self.maps)
        head = self.head = self.head or projection_for(features, self.width, self.dim)
        grid = features[0].shape[-2:]
        label = at_centres(source.label[:, *view.box], (grid[0], grid[1]))
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
        rows = head(features, chosen.index)
        if self.bank is None:
            self._make_bank(num_classes, rows.device)
        label = chosen.label.masked_fill(~chosen.valid, IGNORE_INDEX)
        bank, bank_label = self._with_others(rows, label)
        loss = contrast_anchors(
            rows,
            chosen.label,
            chosen.valid,
            bank=bank,
            bank_label=bank_label,
            temperature=self.temperature,
            similarity=self.similarity,
        )
        self._update_bank(rows.detach(), label, num_classes, generator)
        return loss

    def _with_others(
        self, rows: Float[Tensor, "n d"], label: Int[Tensor, " n"]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the bank, and the anchors of the other processes; both are constants."""
        if process_count() == 1:
            return self.bank, self.bank_label
        others, names = of_others(rows), of_others(label)
        if self.bank is None or self.bank_label is None:
            return others, names
        return torch.cat([others, self.bank]), torch.cat([names, self.bank_label])

    def _make_bank(self, num_classes: int, device: torch.device) -> None:
        if self.memory:
            rows = num_classes * self.memory
            self.bank = torch.zeros(rows, self.dim, device=device)
            self.bank_label = torch.full((rows,), IGNORE_INDEX, device=device)

    def _update_bank(
        self,
        rows: Float[Tensor, "n d"],
        label: Int[Tensor, " n"],
        num_classes: int,
        generator: Generator | None,
    ) -> None:
        """Keep the newest rows of each class; if one step has too many, keep any of them."""
        if self.bank is None or self.bank_label is None:
            return
        order = torch.rand(len(rows), generator=generator, device=rows.device).argsort()
        self.bank, self.bank_label = first_of_each(
            torch.cat([in_turn(rows[order]), self.bank]),
            torch.cat([in_turn(label[order]), self.bank_label]),
            num_classes,
            self.memory,
        )
