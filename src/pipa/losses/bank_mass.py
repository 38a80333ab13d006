"""Sum over the negatives of many rows in one bank, without a matrix of all pairs.

The bank of patch contrast is so long that this matrix would take most of its time and memory.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipa.batch import IGNORE_INDEX
from pipa.losses.info_nce import at_least_float32, scaled_similarity, softmax_and_mass

BLOCK = 512
"""Number of rows that are compared with the bank at a time."""


def bank_mass(
    rows: Float[Tensor, "n d"],
    bank: Float[Tensor, "m d"],
    label: Int[Tensor, " n"],
    bank_label: Int[Tensor, " m"],
    temperature: float,
) -> Float[Tensor, "n 1"]:
    """Log of the sum of exp(s-) over the bank's rows of other classes, in float32 or wider.

    Value and gradient of a block of rows are computed together, so that each block of
    similarities is freed at once.

    Args:
        rows: Unit vectors.
        bank: Unit vectors.
        label: The class of each row.
        bank_label: The class of each row of the bank; 255 is never a negative.
        temperature: tau.

    Returns:
        The masses; about -1e30 for a row without a negative.
    """
    rows, bank = at_least_float32(rows), at_least_float32(bank)
    if len(rows) == 0:
        return rows.sum(dim=1, keepdim=True)
    with torch.autocast(rows.device.type, enabled=False):
        mass: Tensor = _BankMass.apply(rows, bank, label, bank_label, temperature)  # type: ignore[no-untyped-call]
    return mass


class _BankMass(torch.autograd.Function):
    """mass_n = log sum_m exp(r_n b_m / tau), whose gradients are softmax-weighted sums."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, bank: Tensor, label: Tensor, bank_label: Tensor, temperature: float
    ) -> Tensor:
        ctx.temperature = temperature
        masses, means = [], []
        for mass, share in blocks(rows, bank, label, bank_label, temperature):
            masses.append(mass)
            if ctx.needs_input_grad[0]:
                means.append(share @ bank)
        ctx.save_for_backward(rows, bank, label, bank_label, *means)
        return torch.cat(masses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, bank, label, bank_label, *means = ctx.saved_tensors
        gradient = gradient / ctx.temperature
        to_rows = gradient * torch.cat(means) if ctx.needs_input_grad[0] else None
        to_bank = None
        if ctx.needs_input_grad[1]:
            weighted = gradient * rows
            found = blocks(rows, bank, label, bank_label, ctx.temperature)
            to_bank = torch.zeros_like(bank)
            for (_, share), row in zip(found, weighted.split(BLOCK), strict=True):
                to_bank += share.T @ row
        return to_rows, to_bank, None, None, None


def blocks(
    rows: Tensor, bank: Tensor, label: Tensor, bank_label: Tensor, temperature: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, for each block of rows, the masses (n, 1) and each negative's share of them (n, m)."""
    for first in range(0, len(rows), BLOCK):
        some = slice(first, first + BLOCK)
        hidden = (label[some, None] == bank_label) | (bank_label == IGNORE_INDEX)
        similarity = scaled_similarity(rows[some], bank, temperature, hidden)
        share, mass = softmax_and_mass(similarity)
        yield mass, share
