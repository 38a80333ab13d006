"""Patch-wise contrast between two overlapping crops of target images (PiPa, `L_Patch`)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipa.batch import IGNORE_INDEX


def patch_contrast(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "n d"],
    bank: Float[Tensor, "m d"],
    first_label: Int[Tensor, " n"],
    second_label: Int[Tensor, " n"],
    bank_label: Int[Tensor, " m"],
    first_confidence: Float[Tensor, " n"],
    second_confidence: Float[Tensor, " n"],
    temperature: float = 0.1,
    threshold: float = 0.9,
) -> Float[Tensor, ""]:
    """Both directions."""
    forth = one_way(
        first,
        second,
        bank,
        first_label,
        bank_label,
        (second_confidence > threshold) & (first_confidence < second_confidence),
        temperature,
    )
    back = one_way(
        second,
        first,
        bank,
        second_label,
        bank_label,
        (first_confidence > threshold) & (second_confidence < first_confidence),
        temperature,
    )
    return forth + back


def one_way(
    query: Tensor,
    target: Tensor,
    bank: Tensor,
    label: Tensor,
    bank_label: Tensor,
    keep: Tensor,
    temperature: float,
) -> Tensor:
    """Loss of `query` where `keep`."""
    positive = (query * target.detach()).sum(1, keepdim=True) / temperature
    other = query @ bank.T / temperature
    is_negative = (label[:, None] != bank_label) & (bank_label != IGNORE_INDEX)
    mass = other.masked_fill(~is_negative, -1e4).logsumexp(1, keepdim=True)
    loss = (torch.logaddexp(positive, mass) - positive)[:, 0]
    return (loss * keep).sum() / keep.sum().clamp(min=1)


def align(
    second: Float[Tensor, "b c h w"], shift: Int[Tensor, "b 2"], flipped: Bool[Tensor, "b 2"]
) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "b h w"]]:
    """The second view on the first one's grid *as stored*, and where it is seen."""
    b, _, h, w = second.shape
    y = torch.arange(h, device=second.device).expand(b, w, h).transpose(1, 2)
    x = torch.arange(w, device=second.device).expand(b, h, w)
    x = torch.where(flipped[:, 0, None, None], w - 1 - x, x)
    y2, x2 = y - shift[:, 0, None, None], x - shift[:, 1, None, None]
    seen = (y2 >= 0) & (y2 < h) & (x2 >= 0) & (x2 < w)
    x2 = torch.where(flipped[:, 1, None, None], w - 1 - x2, x2)
    place = (y2.clamp(0, h - 1) * w + x2.clamp(0, w - 1)).flatten(1)
    moved = second.flatten(2).gather(2, place[:, None].expand(-1, second.shape[1], -1))
    return moved.view_as(second), seen
