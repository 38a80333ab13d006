"""From draws to batches: worker processes, stacking, and the move to the device.

A batch keeps its names all the way: draws, stacks and batches are the same named tuples. Images
travel as uint8 and become float32 in [0, 1] on the device. An error about a faulty file travels as
a value, because an exception loses its message on leaving a worker's process.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader

from pipa.batch import Batch, Labelled, PairPlace, Unlabelled
from pipa.classes import LabelSpace
from pipa.data import crops
from pipa.data.dataset import Sample, Segmentation, open_labelled
from pipa.data.draws import Item, Loaded
from pipa.errors import PipaError
from pipa.files.images import fit_size

Ready = TypeVar("Ready")


@dataclass
class Batches(Generic[Ready]):
    """What a `DataLoader` loads, moved to the device and converted.

    Args:
        loader: Yields `Loaded`, or a `PipaError`.
        ready: Converts what was loaded, on the device, to what training takes.
        device: Where the batches are needed.
        skipped: The list that files are added to when they are skipped.
    """

    loader: "DataLoader[Any]"
    ready: Callable[[Any], Ready]
    device: torch.device
    skipped: list[PipaError]

    def __iter__(self) -> Iterator[Ready]:
        """Yield batch after batch.

        Raises:
            PipaError: A file is faulty.
        """
        for loaded in self.loader:
            if isinstance(loaded, PipaError):
                try:
                    raise loaded
                finally:
                    del loaded  # frame and error would hold each other, and the workers
            self.skipped.extend(loaded.skipped)
            if loaded.content is not None:
                yield self.ready(each_tensor(loaded.content, self._moved))

    def __len__(self) -> int:
        """Return the number of batches; a `TypeError` if there is no end."""
        return len(self.loader)

    @property
    def _iterator(self) -> Any:
        """By this name Lightning finds the loader's processes, and ends them after a training."""
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self.loader._iterator = iterator

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


@dataclass(frozen=True)
class EndlessBatchSampler:
    """The numbers of the draws of each batch, without end: this process's share of them.

    Args:
        start: Number of the first draw that is still to be made in this run.
        batch_size: Draws per batch and process.
        rank: Number of this process.
        processes: How many processes there are.
    """

    start: int
    batch_size: int
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the numbers of one batch after another."""
        first = self.start + self.rank
        while True:
            yield [first + i * self.processes for i in range(self.batch_size)]
            first += self.batch_size * self.processes


@dataclass(frozen=True)
class ValidationSet:
    """Whole labelled images, for validation.

    Args:
        images: The data set.
        resize: Scale image and label to fit into this; None: leave them as they are.
        skip: Whether to skip a faulty file.
    """

    images: Segmentation
    resize: crops.Size | None
    skip: bool

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Loaded | PipaError:
        """Return one image and its label, or nothing if the file is skipped."""
        try:
            sample = self.images.load(index)
        except PipaError as error:
            return Loaded(None, [error]) if self.skip else error
        image, label, _ = fitted(sample, self.resize)
        assert label is not None, "validation has labels"
        return Loaded(Labelled(torch.from_numpy(image), torch.from_numpy(label)), [])


def fitted(sample: Sample, bounds: crops.Size | None) -> Sample:
    """Scale an image and its label to fit into `bounds`; None leaves them as they are."""
    size = fit_size(sample.image.shape[:2], bounds)
    image = np.asarray(crops.cut_image(sample.image, size, (0, 0), size))
    label = None if sample.label is None else crops.cut_label(sample.label, size, (0, 0), size)
    return Sample(image, label, sample.path)


def labelled_images(data: str, classes: str | None = None) -> tuple[Batches[Labelled], LabelSpace]:
    """Open labelled images to look at as they are; return them, one at a time, and their classes.

    Args:
        data: `[FORMAT[/SPLIT]:]PATH`.
        classes: The classes of the labels; None: the data set's own.

    Raises:
        PipaError: A file is not where it should be, or (later) unreadable.
    """
    images, labels = open_labelled(data, classes)
    loader: DataLoader[Any] = DataLoader(
        ValidationSet(images, None, skip=False),  # type: ignore[arg-type]
        collate_fn=collate,
    )
    return Batches(loader, as_labelled, torch.device("cpu"), []), labels


def outlive_first_sigterm(worker: int) -> None:
    """Let a loader's process end on the second SIGTERM only.

    The first may have gone to all processes of a job; the main one then needs further batches, to
    finish and save its step. PyTorch's own handler, which this replaces, ends at once.
    """
    came: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if came:
            os._exit(0)
        came.append(number)

    signal.signal(signal.SIGTERM, receive)


def collate(items: Sequence[Loaded | PipaError]) -> Loaded | PipaError:
    """Stack the items of a batch; if one is an error, return that instead."""
    loaded: list[Loaded] = []
    for item in items:
        if isinstance(item, PipaError):
            return item
        loaded.append(item)
    contents = [item.content for item in loaded if item.content is not None]
    skipped = [error for item in loaded for error in item.skipped]
    return Loaded(stack(contents) if contents else None, skipped)


def stack(trees: Sequence[Any]) -> Any:
    """Stack named tuples field by field, down to their tensors; a field may be None in all."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.stack(list(trees))
    return type(first)(*map(stack, zip(*trees, strict=True)))


def each_tensor(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change each tensor in a tree of named tuples."""
    if tree is None:
        return None
    if isinstance(tree, Tensor):
        return change(tree)
    return type(tree)(*(each_tensor(field, change) for field in tree))


def as_batch(loaded: Item, pair_crop: crops.Size | None = None) -> Batch:
    """Convert a stack of draws to what a training step takes.

    Args:
        loaded: The stack, on the device.
        pair_crop: The size of a pair that lies in the target crop.
    """
    target, pair = loaded.target, loaded.pair
    if target is not None:
        target = as_unlabelled(target)
    if isinstance(pair, PairPlace):
        assert target is not None
        assert pair_crop is not None
        pair = pair.of(target, pair_crop)
    elif pair is not None:
        pair = pair._replace(first=as_unlabelled(pair.first), second=as_unlabelled(pair.second))
    return Batch(as_labelled(loaded.source), target, pair)


def as_labelled(loaded: Labelled) -> Labelled:
    """Convert images to float32, and labels to int64."""
    return Labelled(as_float(loaded.image), loaded.label.long())


def as_unlabelled(loaded: Unlabelled) -> Unlabelled:
    """Convert images to float32."""
    return loaded._replace(image=as_float(loaded.image))


def as_float(image: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Convert bytes to [0, 1], channels first."""
    floats = image.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    return floats.div_(255)
