"""AdamW's parameter groups and the schedule of the papers."""

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass
class Optim:
    """The `optim:` section.

    Args:
        lr: Learning rate of the backbone (DAFormer: 6e-5).
        head: Factor of the learning rate for heads (DAFormer: 10).
        decay: Weight decay; none on norms (DAFormer: 0.01).
        warm_up: Steps of linear growth (DAFormer: 1500).
        power: Of the polynomial decay (DAFormer: 1).
        clip: Largest norm of the gradient; 0: no limit.
    """

    lr: float = 6e-5
    head: float = 10.0
    decay: float = 0.01
    warm_up: int = 1500
    power: float = 1.0
    clip: float = 0.0


def parameter_groups(module: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Groups."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        lr = optim.lr * (optim.head if "head" in name else 1.0)
        decay = 0.0 if "norm" in name else optim.decay
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": p, "lr": lr, "weight_decay": d} for (lr, d), p in groups.items()]


def warmup_poly(step: int, steps: int, warm_up: int = 1500, power: float = 1.0) -> float:
    """Factor of the learning rate."""
    factor: float = (1 - step / steps) ** power
    if step < warm_up:
        factor *= 1 - (1 - step / warm_up) * (1 - 1e-6)
    return factor
