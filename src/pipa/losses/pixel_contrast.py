"""Pixel-wise contrast on labelled source images (PiPa, `L_Pixel`)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor


@dataclass
class Anchors:
    """Rows of the flattened grid that serve as anchors."""

    index: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    valid: Bool[Tensor, " n"]


def pixel_contrast(
    embeddings: Float[Tensor, "n v d"],
    labels: Int[Tensor, " n"] | Float[Tensor, " n"],
    temperature: float = 0.1,
    base_temperature: float = 0.07,
) -> Float[Tensor, ""]:
    """As the release computes it."""
    n, v, _ = embeddings.shape
    flat = embeddings.flatten(0, 1)
    label = labels.repeat_interleave(v)
    valid = torch.ones(n * v, dtype=torch.bool, device=flat.device)
    return contrast_anchors(flat, label, valid, temperature=temperature) * (
        temperature / base_temperature
    )


def contrast_anchors(
    rows: Float[Tensor, "n d"],
    label: Int[Tensor, " n"] | Float[Tensor, " n"],
    valid: Bool[Tensor, " n"],
    *,
    temperature: float = 0.1,
    similarity: float | None = None,
) -> Float[Tensor, ""]:
    """Mean over anchors of the mean over their positives."""
    logit = rows.float() @ rows.float().T / temperature
    both = valid[:, None] & valid
    same = label[:, None] == label
    eye = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    positive, negative = both & same & ~eye, both & ~same
    if similarity is not None:
        positive = extreme(logit.detach(), positive, similarity, largest=False)
        negative = extreme(logit.detach(), negative, similarity, largest=True)
    mass = logit.masked_fill(~negative, -1e4).logsumexp(1, keepdim=True)
    loss = torch.logaddexp(logit, mass) - logit
    count = positive.sum(1)
    each = (loss * positive).sum(1) / count.clamp(min=1)
    useful = (count > 0) & negative.any(1)
    return (each * useful).sum() / useful.sum().clamp(min=1)


def extreme(
    logit: Tensor, mask: Bool[Tensor, "n m"], share: float, *, largest: bool
) -> Bool[Tensor, "n m"]:
    """The `share` of largest or smallest of each row's masked entries."""
    key = (logit if largest else -logit).masked_fill(~mask, -torch.inf)
    rank = key.argsort(1, descending=True).argsort(1)
    return mask & (rank < (mask.sum(1, keepdim=True) * share).ceil())


def sample_anchors(
    label: Int[Tensor, "b h w"],
    prediction: Int[Tensor, "b h w"] | None,
    *,
    num_classes: int,
    per_class: int = 100,
    total: int = 1024,
    generator: Generator | None = None,
) -> Anchors:
    """Up to `per_class` of each class of each image, `total` in all; half hard, half easy."""
    b = label.shape[0]
    flat = label.flatten(1)
    key = torch.rand(flat.shape, generator=generator, device=flat.device)
    if prediction is not None:
        hard = prediction.flatten(1) != flat
    else:
        hard = torch.zeros_like(flat, dtype=torch.bool)
    index, which, valid, weight = [], [], [], []
    base = torch.arange(b, device=flat.device)[:, None] * flat.shape[1]
    for c in range(num_classes):
        mine = flat == c
        # rank inside hard and easy, interleaved
        k = key.masked_fill(~mine, 9.0)
        if prediction is not None:
            k_hard = k.masked_fill(~hard, 9.0).argsort(1).argsort(1)
            k_easy = k.masked_fill(hard, 9.0).argsort(1).argsort(1)
            k = torch.where(hard, k_hard, k_easy).float().masked_fill(~mine, 1e9) + key * 0.5
        _, at = k.topk(min(per_class, k.shape[1]), dim=1, largest=False)
        index.append((at + base).flatten())
        valid.append(mine.gather(1, at).flatten())
        which.append(torch.full_like(index[-1], c))
    index_, which_, valid_ = torch.cat(index), torch.cat(which), torch.cat(valid)
    order = torch.rand(len(index_), generator=generator, device=flat.device) + ~valid_ * 2.0
    keep = order.argsort()[:total]
    return Anchors(index_[keep], which_[keep], valid_[keep])
