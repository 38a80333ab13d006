"""From draws to batches: worker processes, stacking, and the move to the device.

Images travel as uint8 and become float32 in [0, 1] on the device. A faulty file travels as a value,
so that its one clear sentence arrives whole from a worker's process.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from pipa.batch import Batch, CropPair, Labelled, Unlabelled
from pipa.data import crops
from pipa.data.dataset import Segmentation
from pipa.data.draws import Item
from pipa.errors import PipaError

Ready = TypeVar("Ready")


class Stored(NamedTuple):
    """The arrays of a batch as they travel, and the files that were passed over for it."""

    tensors: tuple[Tensor, ...]
    skipped: list[PipaError]


@dataclass(frozen=True)
class Batches(Generic[Ready]):
    """Yields what a `DataLoader` loads, on the device.

    Args:
        loader: Yields `Stored`, or a `PipaError`.
        ready: From the arrays to the batch.
        device: Where the batches shall be.
        skipped: Takes the files that were passed over.
    """

    loader: "DataLoader[Any]"
    ready: Callable[[Sequence[Tensor]], Ready]
    device: torch.device
    skipped: list[PipaError]

    def __iter__(self) -> Iterator[Ready]:
        """Yield batch after batch.

        Raises:
            PipaError: A file is faulty.
        """
        for stored in self.loader:
            if isinstance(stored, PipaError):
                try:
                    raise stored
                finally:
                    del stored  # frame and error would hold each other, and the workers
            self.skipped.extend(stored.skipped)
            if stored.tensors:
                yield self.ready([t.to(self.device, non_blocking=True) for t in stored.tensors])

    def __len__(self) -> int:
        """How many batches there are, where that is known (a `TypeError` else)."""
        return len(self.loader)


@dataclass(frozen=True)
class Numbers:
    """Numbers of the draws of each batch, without end: this process's share of them.

    Args:
        start: First draw of the run that is still to be made.
        batch_size: Draws per batch and process.
        rank: This process, of `world`.
        world: Number of processes.
    """

    start: int
    batch_size: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the numbers of one batch after another."""
        first = self.start + self.rank
        while True:
            yield [first + i * self.world for i in range(self.batch_size)]
            first += self.batch_size * self.world


@dataclass(frozen=True)
class Whole:
    """Whole labelled images, for validation.

    Args:
        images: The data set.
        resize: Scale image and label to fit into this; None: as they are.
        skip: Whether a faulty file is passed over.
    """

    images: Segmentation
    resize: crops.Size | None
    skip: bool

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Stored | PipaError:
        """One image; nothing where it is passed over."""
        try:
            sample = self.images.load(index)
        except PipaError as error:
            return Stored((), [error]) if self.skip else error
        assert sample.label is not None, "validation has labels"
        size = crops.fit_size(sample.image.shape[:2], self.resize)
        image = crops.cut_image(sample.image, size, (0, 0), size)
        label = crops.cut_label(sample.label, size, (0, 0), size)
        return Stored((_stack([image]), _stack([label])), [])


def collate(items: Sequence[Item | PipaError]) -> Stored | PipaError:
    """Stack the items of a batch; the first fault among them instead, where there is one."""
    whole: list[Item] = []
    for item in items:
        if isinstance(item, PipaError):
            return item
        whole.append(item)
    tensors = [_stack([i.source.image for i in whole]), _stack([i.source.label for i in whole])]
    targets = [i.target for i in whole if i.target is not None]
    pairs = [t.pair for t in targets if t.pair is not None]
    views = [[t.view for t in targets], [p.first for p in pairs], [p.second for p in pairs]]
    for column in filter(None, views):
        tensors += [_stack([v.image for v in column]), _stack([v.valid for v in column])]
    if pairs:
        tensors += [
            torch.tensor([p.shift for p in pairs]),
            torch.tensor([p.flipped for p in pairs]),
        ]
    return Stored(tuple(tensors), [error for item in whole for error in item.skipped])


def as_batch(tensors: Sequence[Tensor]) -> Batch:
    """What `collate` stacked, as a batch: 2 tensors, 4 with a target, 10 with a pair."""
    views = [
        Unlabelled(as_float(image), valid)
        for image, valid in zip(tensors[2:8:2], tensors[3:8:2], strict=True)
    ]
    pair = CropPair(views[1], views[2], tensors[8], tensors[9]) if len(views) > 1 else None
    return Batch(as_labelled(tensors[:2]), views[0] if views else None, pair)


def as_labelled(tensors: Sequence[Tensor]) -> Labelled:
    """Images and their train ids."""
    return Labelled(as_float(tensors[0]), tensors[1].long())


def as_float(image: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """From bytes to [0, 1], channels first."""
    floats = image.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return floats.div_(255)


def only(items: Sequence[Stored | PipaError]) -> Stored | PipaError:
    """The only item of a batch."""
    return items[0]


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
