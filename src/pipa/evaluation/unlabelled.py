"""Observations of a network on unlabelled images, and the criteria computed from them.

Sums over images have a weight for each image, so that images can be resampled.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from pipa.evaluation.perturbations import Perturbed
from pipa.models.segmenter import Segmenter
from pipa.models.windows import slide

SND_PIXELS, SND_TEMPERATURE = 100, 0.05


@dataclass(frozen=True)
class Observed:
    """Counts of one network for each of n images; p perturbations, k classes."""

    both: Float[np.ndarray, "*n p k"]
    """Number of pixels of a class before and after a perturbation."""
    either: Float[np.ndarray, "*n p k"]
    """Number of pixels of a class before or after a perturbation."""
    count: Float[np.ndarray, "*n k"]
    """Number of pixels of each class."""
    probability: Float[np.ndarray, "*n k"]
    """Mean probability of each class."""
    entropy: Float[np.ndarray, "*n"]
    """Mean entropy of a pixel's probabilities, in nats."""
    confidence: Float[np.ndarray, "*n"]
    """Mean probability of the predicted class."""
    snd: Float[np.ndarray, "*n"]
    """Soft neighbourhood density (see `neighbourhood_density`)."""


def observe(
    model: Segmenter,
    image: Float[Tensor, "1 3 h w"],
    changes: Mapping[str, Perturbed],
    generator: Generator,
) -> Observed:
    """Observe a network on one image and its perturbations.

    Args:
        model: The network, in evaluation mode.
        image: RGB in [0, 1], on the CPU.
        changes: The same image, perturbed.
        generator: Decides the pixels of SND; on the CPU.
    """
    device, k = model.mean.device, model.num_classes
    logits = slide(model, image.to(device)).float()
    label = logits.argmax(dim=1)[0]
    both, either = [], []
    for change in changes.values():
        after = change.restore(slide(model, change.image.to(device))).argmax(dim=1)[0]
        before = label[*change.box]
        same = torch.bincount(before[before == after], minlength=k)
        both.append(same)
        either.append(_count(before, k) + _count(after, k) - same)
    probability = logits.softmax(dim=1)[0].flatten(1)
    pixels = torch.randint(probability.shape[1], (SND_PIXELS,), generator=generator).to(device)
    return Observed(
        both=_array(torch.stack(both)),
        either=_array(torch.stack(either)),
        count=_array(_count(label, k)),
        probability=_array(probability.mean(dim=1)),
        entropy=_array(torch.special.entr(probability).sum(dim=0).mean()),
        confidence=_array(probability.amax(dim=0).mean()),
        snd=_array(neighbourhood_density(probability[:, pixels].T)),
    )


def stack(observed: Sequence[Observed]) -> Observed:
    """Stack the observations of single images."""
    columns = {
        f.name: np.stack([getattr(one, f.name) for one in observed]) for f in fields(Observed)
    }
    return Observed(**columns)


def agreement(
    observed: Observed,
    source_shares: Float[np.ndarray, " k"],
    weight: Float[np.ndarray, "d n"],
) -> Float[np.ndarray, " d"]:
    """A: mIoU of predictions after a perturbation with those before, mean over perturbations.

    The mean is over the classes of the source and the predicted ones: a class of the source that a
    network never predicts counts as 0; otherwise a network with a single class would agree best.

    Args:
        observed: Counts of n images.
        source_shares: Share of each class in the source.
        weight: Weight of each image, in each of d resamples.
    """
    both, either = (np.einsum("dn,npk->dpk", weight, x) for x in (observed.both, observed.either))
    iou = both / np.maximum(either, 1)
    expected = (source_shares > 0) | (either > 0)
    return np.asarray((iou.sum(axis=2) / expected.sum(axis=2)).mean(axis=1))


def divergence(
    observed: Observed,
    source_shares: Float[np.ndarray, " k"],
    weight: Float[np.ndarray, "d n"],
) -> Float[np.ndarray, " d"]:
    """Jensen-Shannon divergence of the predicted class shares and the source's, in [0, ln 2]."""
    count = weight @ observed.count
    shares = count / count.sum(axis=1, keepdims=True)
    middle = (shares + source_shares) / 2
    return np.asarray(entropy(middle) - (entropy(shares) + entropy(source_shares)) / 2).clip(0)


def score(
    agreement: Float[np.ndarray, " d"], divergence: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " d"]:
    """A * (1 - sqrt(JS / ln 2)), in [0, 1]."""
    return np.asarray(agreement * (1 - np.sqrt(divergence / math.log(2))))


def information(observed: Observed) -> float:
    """Mutual information of input and prediction, H(mean p) - mean H(p), in nats (InfoMax)."""
    return float(entropy(observed.probability.mean(axis=0)) - observed.entropy.mean())


def entropy(probability: Float[np.ndarray, "*d k"]) -> Float[np.ndarray, "*d"]:
    """Entropy over the last axis, in nats."""
    return np.asarray(-(probability * np.log(np.maximum(probability, 1e-300))).sum(axis=-1))


def neighbourhood_density(probability: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """SND: mean entropy of the similarities of each pixel to the others (Saito et al., ICCV 2021).

    Args:
        probability: Softmax of pixels, as rows.
    """
    unit = F.normalize(probability, dim=1)
    similarity = unit @ unit.T / SND_TEMPERATURE
    # As in the authors' code, a pixel is not compared with itself.
    similarity.fill_diagonal_(-1 / SND_TEMPERATURE)
    entropies: Tensor = torch.special.entr(similarity.softmax(dim=1)).sum(dim=1)
    return entropies.mean()


def _count(label: Int[Tensor, "*pixels"], k: int) -> Int[Tensor, " k"]:
    return torch.bincount(label.flatten(), minlength=k)


def _array(value: Tensor) -> Float[np.ndarray, "*shape"]:
    return value.cpu().double().numpy()  # MPS has no double
