"""A network and pseudo-labels with known outputs, for the tests of terms."""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from pipa.batch import Batch, Box, CropPair, Labelled, Unlabelled
from pipa.models.segmenter import Output, Prediction, Segmenter, View
from pipa.uda.pseudo import Pseudo
from pipa.uda.terms import Given
from pipa.uda.terms.pair import PairPass
from uda.steps import CLASSES


class Window(Segmenter):
    """A network that only passes on what it sees: a pixel of every 4 x 4 is feature and logits."""

    def __init__(self) -> None:
        super().__init__(3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: Tensor | None = None

    def context(self, image: Tensor) -> View:
        self.seen = self.normalise(image)
        box = Box(slice(0, image.shape[2]), slice(0, image.shape[3]))
        return View([image[:, :, ::4, ::4] * self.scale], box)

    def analyse(self, image: Tensor) -> Prediction:
        view = self.context(image)
        return Prediction([Output(view.features[0], view.box, 1.0)], view, view)

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.context(image).features[0], image.shape[-2:], mode="bilinear")


class Two(Segmenter):
    """A network of one parameter that answers twice, as HRDA: for the image, and for its corner."""

    def __init__(self) -> None:
        super().__init__(CLASSES)
        self.scale = nn.Parameter(torch.ones(()))

    def context(self, image: Tensor) -> View:
        return View([image[:, :, ::4, ::4] * self.scale], Box(slice(0, 32), slice(0, 32)))

    def analyse(self, image: Tensor) -> Prediction:
        view = self.context(image)
        part = Output(view.features[0][..., :4, 2:6] * 3, Box(slice(0, 16), slice(8, 24)), 0.1)
        return Prediction([Output(view.features[0], view.box, 0.9), part], view, view)

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.context(image).features[0], image.shape[-2:], mode="bilinear")


class Direction(nn.Module):
    """In place of a projection head: the first map's own direction."""

    def forward(self, features: list[Tensor], place: Tensor) -> Tensor:
        rows = features[0].permute(0, 2, 3, 1).flatten(0, 2)
        return F.normalize(rows[place] - 0.5, dim=1)


def plain(
    student: Segmenter,
    batch: Batch,
    pseudo: Pseudo | None = None,
    generator: Generator | None = None,
) -> Given:
    """What a term of the pair is given, with the crops in their own colours."""
    seen = PairPass(student, batch.pair, jitter=False)
    return Given(student, batch, pseudo, generator, seen)


def everywhere(features: list[Tensor]) -> Tensor:
    """The indices of all places of the first map."""
    b, _, h, w = features[0].shape
    return torch.arange(b * h * w)


def flat(label: Tensor, confidence: float) -> Pseudo:
    """Pseudo-labels of a teacher that is equally sure of every pixel."""
    sure = torch.ones(label.shape, dtype=torch.bool)
    return Pseudo(label, sure.float(), torch.full(label.shape, confidence), sure)


def pair_batch(
    size: tuple[int, int], shift: tuple[int, int], flipped: tuple[bool, bool], seed: int = 0
) -> Batch:
    """Two crops of a picture whose 4 x 4 cells have colours of their own."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(1, 3, 40, 40, generator=generator)
    whole = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)
    corners = [(40, 40), (40 + shift[0], 40 + shift[1])]
    crops = [whole[:, :, y : y + size[0], x : x + size[1]] for y, x in corners]
    crops = [c.flip(3) if f else c for c, f in zip(crops, flipped, strict=True)]
    first, second = (Unlabelled(c, torch.ones(1, *size, dtype=torch.bool)) for c in crops)
    pair = CropPair(first, second, torch.tensor([shift]), torch.tensor([flipped]))
    source = Labelled(first.image, torch.zeros(1, *size, dtype=torch.long))
    return Batch(source, first, pair)


def labelled_pair(batch: Batch, first: float = 0.95, second: float = 0.99) -> Pseudo:
    """Places are of class 1 where they are red; the second crop is the surer one."""
    crops = (batch.pair.first.image, first), (batch.pair.second.image, second)
    pair = [flat((image[:, 0] > 0.5).long(), sure) for image, sure in crops]
    whole = flat(batch.source.label, 0.5)
    whole.pair = pair[0], pair[1]
    return whole
