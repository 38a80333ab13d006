"""ClassMix: half of the source image's classes, pasted onto the target image (DACS)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from pipa.batch import IGNORE_INDEX, Labelled, Unlabelled
from pipa.uda.teacher import Pseudo


@dataclass
class Mixed:
    """Mixed images with label and weight."""

    image: Float[Tensor, "b 3 h w"]
    label: Int[Tensor, "b h w"]
    weight: Float[Tensor, "b h w"]


def classmix(
    source: Labelled, target: Unlabelled, pseudo: Pseudo, generator: Generator | None
) -> Mixed:
    """Mix."""
    paste = paste_mask(source.label, generator)
    return Mixed(
        torch.where(paste[:, None], source.image, target.image),
        torch.where(paste, source.label, pseudo.label),
        torch.where(paste, torch.ones_like(pseudo.weight), pseudo.weight),
    )


def paste_mask(label: Int[Tensor, "b h w"], generator: Generator | None) -> Bool[Tensor, "b h w"]:
    """Pixels of half of the classes of each image, rounded up; never 255."""
    b = label.shape[0]
    present = torch.zeros(b, 256, device=label.device, dtype=torch.bool)
    present.scatter_(1, label.flatten(1), True)
    present[:, IGNORE_INDEX] = False
    key = torch.rand(b, 256, generator=generator, device=label.device).masked_fill(~present, 2)
    rank = key.argsort(1).argsort(1)
    half = (present.sum(1, keepdim=True) + 1) // 2
    chosen = (rank < half) & present
    return chosen.gather(1, label.flatten(1)).view_as(label)
