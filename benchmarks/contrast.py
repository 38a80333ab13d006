"""Both contrast losses against the textbook's formulation: time and peak memory, same values.

python benchmarks/contrast.py [--repeats 9] [--json runs/benchmarks/contrast.json]

Forward and backward on one CPU thread, float32. The textbook's formulation computes the whole
matrix of similarities, exponentiates it and multiplies it with masks: for pixels as ContrastiveSeg
and PiPa's release do, for patches as CAC's formula reads, in both directions for every place.
Time is measured in alternation, memory in a process of its own.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measuring import peak, report, reset_peak
from torch import Tensor
from torch.nn import functional as F

from pipa.losses import patch_contrast
from pipa.losses.pixel_contrast import contrast_anchors

PLACES, BANK, PATCH_DIM = 2 * 45**2, 9600, 128
ANCHORS, PIXEL_DIM = 1024, 256
CLASSES, TAU = 19, 0.1
COLUMNS = ("loss", "formulation", "seconds", "MiB", "time ratio", "memory ratio", "value")


def textbook_pixel(rows: Tensor, label: Tensor, valid: Tensor) -> Tensor:
    """Supervised contrast of anchors, all of which are valid."""
    logits = rows @ rows.T / TAU
    logits = logits - logits.max(dim=1, keepdim=True).values.detach()
    same = (label[:, None] == label).float()
    positive = same - torch.eye(len(rows))
    exponential = logits.exp()
    negative = (exponential * (1 - same)).sum(dim=1, keepdim=True)
    log_probability = logits - (exponential + negative).log()
    return -((positive * log_probability).sum(dim=1) / positive.sum(dim=1)).mean()


def textbook_patch(
    first: Tensor,
    second: Tensor,
    bank: Tensor,
    first_label: Tensor,
    second_label: Tensor,
    bank_label: Tensor,
    first_confidence: Tensor,
    second_confidence: Tensor,
) -> Tensor:
    """Both directions for every place; those in which it does not learn are left out at the end."""

    def direction(query: Tensor, goal: Tensor, label: Tensor, learns: Tensor) -> Tensor:
        positive = ((query * goal.detach()).sum(dim=1) / TAU).exp()
        mask = (label[:, None] != bank_label) & (bank_label != 255)
        negative = ((query @ bank.T / TAU).exp() * mask).sum(dim=1)
        loss = -torch.log(positive / (positive + negative) + 1e-8)
        return (loss * learns).sum() / learns.sum()

    forth = (second_confidence > 0.9) & (first_confidence < second_confidence)
    back = (first_confidence > 0.9) & (second_confidence < first_confidence)
    return direction(first, second, first_label, forth) + direction(
        second, first, second_label, back
    )


LOSSES: dict[str, dict[str, Callable[..., Tensor]]] = {
    "pixel": {"textbook": textbook_pixel, "ours": contrast_anchors},
    "patch": {"textbook": textbook_patch, "ours": patch_contrast},
}
SIZES = {
    "pixel": f"{ANCHORS} anchors x {PIXEL_DIM}",
    "patch": f"{PLACES} places x {BANK} negatives",
}


def inputs(loss: str, share: float = 1.0) -> list[Tensor]:
    """Random unit vectors, classes and confidences; `share` of the full number of rows."""
    generator = torch.Generator().manual_seed(0)

    def unit_rows(count: int, dim: int) -> Tensor:
        return F.normalize(torch.randn(count, dim, generator=generator), dim=1)

    def label(count: int) -> Tensor:
        return torch.randint(CLASSES, (count,), generator=generator)

    if loss == "pixel":
        n = int(ANCHORS * share)
        return [unit_rows(n, PIXEL_DIM).requires_grad_(), label(n), torch.ones(n, dtype=torch.bool)]
    n, m = int(PLACES * share), int(BANK * share)
    crops = [unit_rows(n, PATCH_DIM).requires_grad_() for _ in range(2)]
    confidence = torch.rand(2, n, generator=generator) * 0.2 + 0.8
    return [*crops, unit_rows(m, PATCH_DIM), label(n), label(n), label(m), *confidence]


def run(function: Callable[..., Tensor], arguments: list[Tensor]) -> float:
    """Forward and backward; the loss."""
    loss = function(*arguments)
    loss.backward()
    for argument in arguments:
        argument.grad = None
    return loss.item()


def memory(loss: str, way: str) -> float:
    """MiB above what was resident before one forward and backward, in a fresh process."""
    torch.set_num_threads(1)
    run(LOSSES[loss][way], inputs(loss, 0.1))  # what is loaded at the first use
    arguments = inputs(loss)
    before = reset_peak()
    run(LOSSES[loss][way], arguments)
    return peak() - before


def seconds(loss: str, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of forward and backward of each formulation, in alternation."""
    arguments = inputs(loss)
    found: dict[str, list[float]] = {way: [] for way in LOSSES[loss]}
    for _ in range(repeats + 1):
        for way, function in LOSSES[loss].items():
            since = time.process_time()
            run(function, arguments)
            found[way].append(time.process_time() - since)
    return {way: each[1:] for way, each in found.items()}


def main() -> None:
    """Measure both losses, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/contrast.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for loss, ways in LOSSES.items():
        times = seconds(loss, options.repeats * (5 if loss == "pixel" else 1))
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = dict(
                zip(ways, pool.starmap(memory, [(loss, way) for way in ways], 1), strict=True)
            )
        for way, function in ways.items():
            pairs = zip(times[way], times["textbook"], strict=True)
            rows.append(
                {
                    "loss": f"{loss}, {SIZES[loss]}",
                    "formulation": way,
                    "seconds": statistics.median(times[way]),
                    "MiB": peaks[way],
                    "time ratio": statistics.median(one / other for one, other in pairs),
                    "memory ratio": peaks[way] / peaks["textbook"],
                    "value": run(function, inputs(loss)),
                }
            )
    report("Contrast losses, forward and backward, one thread", COLUMNS, rows, options.json)


if __name__ == "__main__":
    main()
