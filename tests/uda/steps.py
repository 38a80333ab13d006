"""Batches in memory and the real trainer, for the tests of training steps."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor

import pipa
from pipa.batch import Batch, CropPair, Labelled, Unlabelled
from pipa.classes import LabelSpace
from pipa.models.segmenter import Segmenter
from pipa.run.engine import hush_lightning
from pipa.uda.method import Method

CLASSES = 3
LABELS = LabelSpace(("a", "b", "c"), ((200, 0, 0), (0, 200, 0), (0, 0, 200)))


def small(**options: Any) -> Segmenter:
    """A network for 32 pixel crops, always with the same weights."""
    torch.manual_seed(0)
    backbone = {"settings": {"widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}}
    return pipa.create_segmenter("small", CLASSES, backbone=backbone, head={"width": 16}, **options)


def batch_of(seed: int = 0, b: int = 2, side: int = 32, *, classes: int = CLASSES) -> Batch:
    """Source, target and pair; the second crop lies 8 rows lower and is mirrored in one image."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(classes, (b, side // 8, side // 8), generator=generator)
    label = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
    noise = torch.rand(b, 3, side, side, generator=generator)
    image = 0.7 * torch.stack([(label == c).float() for c in range(3)], 1) + 0.3 * noise
    label[:, :3] = 255
    whole = torch.rand(b, 3, side + 8, side, generator=generator)
    valid = torch.ones(b, side, side, dtype=torch.bool)
    flipped = torch.tensor([[False, i % 2 == 1] for i in range(b)])
    second = whole[:, :, 8:].where(~flipped[:, 1, None, None, None], whole[:, :, 8:].flip(3))
    pair = CropPair(
        Unlabelled(whole[:, :, :side], valid.clone()),
        Unlabelled(second, valid.clone()),
        torch.tensor([[8, 0]] * b),
        flipped,
    )
    target = Unlabelled(torch.rand(b, 3, side, side, generator=generator), valid)
    return Batch(Labelled(image, label), target, pair)


@dataclass
class Feed:
    """Batches for the trainer, which takes a bare list for several loaders."""

    batches: Sequence[Batch | Labelled]

    def __iter__(self) -> Iterator[Batch | Labelled]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def fit(
    module: Method,
    batches: Any,
    steps: int | None = None,
    *,
    validation: Any = None,
    **options: Any,
) -> L.Trainer:
    """Train on these batches once; `steps` is the length of the schedule."""
    given = {
        "max_steps": steps or len(batches),
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    trainer = L.Trainer(**(given | options))
    with warnings.catch_warnings():
        hush_lightning()
        warnings.filterwarnings("ignore", ".*have no `val_dataloader`.*")
        trainer.fit(module, batches, validation)
    return trainer


def batches(count: int = 3) -> Feed:
    """The same few batches each time."""
    return Feed([batch_of(seed) for seed in range(count)])


def trained(module: Method, count: int = 3, **options: Any) -> dict[str, Tensor]:
    """The state after training on `batches(count)`."""
    fit(module, batches(count), **options)
    return module.state_dict()
