"""Pixel-wise contrast on labelled source images (PiPa, `L_Pixel`).

Pixels of one class attract, of other classes repel, within the sampled anchors of a batch and,
optionally, rows of earlier ones. Sampling is here; the softmax is in `info_nce`; the projection
head and the bank belong to `PixelTerm`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Generator, Tensor

from pipa.batch import IGNORE_INDEX
from pipa.losses.info_nce import info_nce, negative_mass, scaled_similarity, self_similarity
from pipa.losses.masked_mean import masked_mean


def pixel_contrast(
    embeddings: Float[Tensor, "n v d"],
    labels: Real[Tensor, " n"],
    temperature: float = 0.1,
    base_temperature: float = 0.07,
) -> Float[Tensor, ""]:
    """`L_Pixel` of groups of pixels, as the release computes it.

    Source: PiPa@PiPa_DAFormer/mmseg/models/decode_heads/decode_head.py, which has it from
    tfzhou/ContrastiveSeg. Groups of label 255 are left out (the release contrasts them).

    Args:
        embeddings: v unit vectors for each of n (image, class) groups.
        labels: The class of each group.
        temperature: tau.
        base_temperature: The loss is multiplied by tau over this; the paper has no such factor.

    Returns:
        The loss; exactly 0 with a gradient of 0 where there is one class, or no pair, only.
    """
    rows = embeddings.flatten(0, 1)
    label = labels.repeat_interleave(embeddings.shape[1])
    everyone = torch.ones_like(label, dtype=torch.bool)
    loss = contrast_anchors(rows, label, everyone, temperature=temperature)
    return loss * (temperature / base_temperature)


def contrast_anchors(
    rows: Float[Tensor, "n d"],
    label: Real[Tensor, " n"],
    valid: Bool[Tensor, " n"],
    *,
    bank: Float[Tensor, "m d"] | None = None,
    bank_label: Real[Tensor, " m"] | None = None,
    temperature: float = 0.1,
    similarity: float | None = None,
) -> Float[Tensor, ""]:
    """`L_Pixel` of anchors, each a positive or a negative of every other; computed in float32.

    The mean over anchors of the mean over an anchor's positives of the loss of the pair. Rows of a
    bank are further positives and negatives, never anchors.

    Args:
        rows: A unit vector for each anchor.
        label: The class of each anchor; 255 never counts.
        valid: False for rows that only fill up the tensor.
        bank: Unit vectors of earlier steps, constants here (after the abstract of PiPa++, arXiv
            2407.17101). None: the anchors alone.
        bank_label: The classes of the bank's rows, given with it; 255 never counts.
        temperature: tau.
        similarity: Share of an anchor's positives, the least similar ones, and of its negatives,
            the most similar ones, that count, the bank's included, in (0, 1]: the paper's rule is
            0.1. None: all, as the release.

    Returns:
        The loss; exactly 0 with a gradient of 0 where there is one class, or no pair, only.
    """
    valid = valid & (label != IGNORE_INDEX)
    logits = self_similarity(rows, temperature)
    other_label, other_valid = label, valid
    if bank is not None:
        assert bank_label is not None, "a bank comes with its labels"
        with_bank = scaled_similarity(rows, bank.detach().to(rows.dtype), temperature)
        logits = torch.cat([logits, with_bank], dim=1)
        other_label = torch.cat([label, bank_label])
        other_valid = torch.cat([valid, bank_label != IGNORE_INDEX])
    both = valid[:, None] & other_valid
    same = label[:, None] == other_label
    negative = both & ~same
    positive = both & same
    positive.diagonal().zero_()  # an anchor is no positive of itself
    if similarity is not None:
        positive = highest(-logits.detach(), positive, similarity)
        negative = highest(logits.detach(), negative, similarity)

    loss = info_nce(logits, negative_mass(logits, ~negative))
    positives = positive.sum(dim=1)
    of_anchor = (loss * positive.to(loss.dtype)).sum(dim=1) / positives.clamp(min=1)
    return masked_mean(of_anchor, positives > 0)


def highest(
    value: Float[Tensor, "n m"], mask: Bool[Tensor, "n m"], share: float
) -> Bool[Tensor, "n m"]:
    """The highest `share` of the masked entries of each row, rounded up; all that tie with them."""
    columns = min(value.shape[1], math.ceil(value.shape[1] * share))
    # 10 % of 30 is 3, whatever the last bit says.
    wanted = (mask.sum(dim=1, keepdim=True) * share - 1e-4).ceil().long().clamp(1, columns)
    best = value.masked_fill(~mask, -torch.inf).topk(columns, dim=1).values
    return mask & (value >= best.gather(1, wanted - 1))


@dataclass
class Anchors:
    """A fixed number of pixels of a batch: rows of `embedding` flattened to (b h w, d)."""

    index: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    valid: Bool[Tensor, " n"]
    """False for rows that only fill up the tensor; their index and label mean nothing."""


def sample_anchors(
    label: Int[Tensor, "b h w"],
    prediction: Int[Tensor, "b h w"] | None,
    *,
    num_classes: int,
    per_class: int = 100,
    total: int = 1024,
    min_pixels: int = 1,
    generator: Generator | None = None,
) -> Anchors:
    """Draw anchors of each class of each image: half where the decoder errs, half where not.

    Every (image, class) group gets as many: `per_class`, or its share of `total`. Where a group
    has too few pixels of one half, the other half fills up (PiPa's release, from
    tfzhou/ContrastiveSeg; there the halves follow a classifier that is never trained). Nothing
    here waits for the device: the number of rows does not depend on what is in the images.

    Args:
        label: Train ids in [0, num_classes) on the embedding's grid; 255 is never drawn.
        prediction: The trained decoder's classes there; None: no halves, anywhere in the class.
        num_classes: Number of classes.
        per_class: Anchors of one class of one image at most (release: 100).
        total: Anchors at most (release: 1024).
        min_pixels: Groups with fewer pixels are left out (release: 101; it takes groups of one
            size only).
        generator: Of the labels' device.
    """
    key = torch.rand(label.shape, generator=generator, device=label.device)
    return first_anchors(
        label,
        prediction,
        key,
        num_classes=num_classes,
        per_class=per_class,
        total=total,
        min_pixels=min_pixels,
    )


def first_anchors(
    label: Int[Tensor, "b h w"],
    prediction: Int[Tensor, "b h w"] | None,
    key: Real[Tensor, "b h w"],
    *,
    num_classes: int,
    per_class: int,
    total: int,
    min_pixels: int,
) -> Anchors:
    """What `sample_anchors` draws when it takes the pixels with the smallest `key` first.

    The anchors come sorted by image, class, first hard then easy, key.
    """
    b = label.shape[0]
    known = label != IGNORE_INDEX
    image = torch.arange(b, device=label.device)[:, None, None]
    group = (image * num_classes + label).where(known, b * num_classes).flatten()
    hard = torch.zeros_like(known) if prediction is None else prediction != label
    half = group * 2 + ~hard.flatten()

    size = torch.zeros(2 * b * num_classes + 2, dtype=torch.long, device=label.device)
    size.scatter_add_(0, half, torch.ones_like(half))
    quota = quotas(size[:-2].view(-1, 2), per_class, total, min_pixels).flatten()
    quota = torch.cat([quota, quota.new_zeros(2)])  # none of 255

    order = key.flatten().argsort(stable=True)
    order = order[half[order].argsort(stable=True)]
    half = half[order]
    rank = torch.arange(len(order), device=label.device) - (size.cumsum(0) - size)[half]
    taken = rank < quota[half]
    front = (~taken).to(torch.uint8).argsort(stable=True)[:total]
    index = order[front]
    return Anchors(index, label.flatten()[index], taken[front])


def quotas(
    size: Int[Tensor, "g 2"], per_class: int, total: int, min_pixels: int
) -> Int[Tensor, "g 2"]:
    """How many anchors each group gives, of its hard and of its easy pixels."""
    pixels = size.sum(dim=1)
    used = pixels >= max(1, min_pixels)
    share = (total // used.sum().clamp(min=1)).clamp(1, per_class)
    hard, easy = size.unbind(dim=1)
    from_hard = torch.minimum(hard, torch.maximum(share // 2, share - easy))
    from_easy = torch.minimum(easy, share - from_hard)
    return torch.stack([from_hard, from_easy], dim=1) * used[:, None]


def first_of_each(
    rows: Float[Tensor, "n d"], label: Int[Tensor, " n"], num_classes: int, count: int
) -> tuple[Float[Tensor, "m d"], Int[Tensor, " m"]]:
    """The first `count` rows of each class, class after class: `m = num_classes * count`.

    What a bank keeps that holds as much of each class, if the newest rows come first. `count` is
    at most n; the number of rows does not depend on the labels.

    Returns:
        The rows and their labels; where a class has too few, rows that mean nothing with 255.
    """
    classes = torch.arange(num_classes, device=label.device)
    member = label == classes[:, None]
    first = (~member).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    kept = classes[:, None].where(member.gather(1, first), IGNORE_INDEX)
    return rows[first].flatten(0, 1), kept.flatten()
