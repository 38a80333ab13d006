"""ClassMix: half of a source image's classes, pasted onto a target image.

Olsson et al., WACV 2021; between domains: DACS, Tranheden et al., WACV 2021. Two differences from
DAFormer@mmseg/models/utils/dacs_transforms.py: classes are counted in each image, not in the whole
batch, and 255 is not one of them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pipa.batch import IGNORE_INDEX, Labelled, Unlabelled
from pipa.uda.teacher import Pseudo


@dataclass
class Mixed:
    """x^Mix and what to teach on it."""

    image: Float[Tensor, "b 3 h w"]
    label: Int[Tensor, "b h w"]
    """Ground truth where the source was pasted, pseudo-labels elsewhere."""
    weight: Float[Tensor, "b h w"]
    """1 where the source was pasted, the pseudo-labels' q_T elsewhere."""


def classmix(
    source: Labelled, target: Unlabelled, pseudo: Pseudo, generator: Generator | None = None
) -> Mixed:
    """Paste pixels of half of the classes of each source image onto the target image beside it.

    Args:
        source: As many images as `target`, of the same size.
        target: The images below.
        pseudo: What the teacher says of them.
        generator: Decides the classes; of the images' device.
    """
    paste = paste_mask(source.label, choose_classes(source.label, generator))
    return Mixed(
        image=torch.where(paste[:, None], source.image, target.image),
        label=torch.where(paste, source.label, pseudo.label),
        weight=torch.where(paste, 1.0, pseudo.weight),
    )


def choose_classes(
    label: Int[Tensor, "b h w"], generator: Generator | None = None
) -> Bool[Tensor, "b 256"]:
    """Half of the classes that each image shows, rounded up, by id; never 255."""
    b = label.shape[0]
    present = torch.zeros(b, IGNORE_INDEX + 1, dtype=torch.bool, device=label.device)
    present.scatter_(1, label.flatten(1), True)
    present[:, IGNORE_INDEX] = False
    key = torch.rand(present.shape, generator=generator, device=label.device)
    rank = key.masked_fill(~present, 2.0).argsort(dim=1).argsort(dim=1)
    half = (present.sum(dim=1, keepdim=True) + 1) // 2
    return rank < half


def paste_mask(label: Int[Tensor, "b h w"], chosen: Bool[Tensor, "b 256"]) -> Bool[Tensor, "b h w"]:
    """Pixels whose class is among those chosen of their image."""
    return chosen.gather(1, label.flatten(1)).view_as(label)
