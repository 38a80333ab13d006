"""AdamW's parameter groups and the schedule of DAFormer, HRDA and PiPa; layer-wise learning rates.

Source: DAFormer@configs/_base_/schedules/{adamw,poly10warm}.py, read by mmcv 1.3.7.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pipa.errors import PipaError, at_least
from pipa.models.backbones import Backbone

FUSED = {"cpu", "cuda"}
"""Devices on which torch fuses AdamW."""
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass
class Optim:
    """Learning rate, schedule and clipping: the `optim:` section of an experiment.

    Args:
        lr: Learning rate of the backbone (DAFormer: 6e-5).
        head: Factor of the learning rate for heads (DAFormer: 10).
        decay: Weight decay (DAFormer: 0.01); norms and positional blocks outside heads have none.
        warm_up: Steps of linear growth (DAFormer: 1500).
        power: Power of the polynomial decay to 0 (DAFormer: 1).
        clip: Maximum norm of the gradient of all trained parameters, those of a discriminator
            included; 0: no limit (DAFormer: none).
        layer_decay: Factor of the learning rate from each layer of the backbone to the one before
            it (Clark et al.: ELECTRA, ICLR 2020; Bao et al.: BEiT, ICLR 2022); 1: none (DAFormer).
            Layer l of L has lr * layer_decay ** (L - l), the last block has lr.

    Raises:
        PipaError: `layer_decay` is not in (0, 1], or `warm_up` is below 0.
    """

    lr: float = 6e-5
    head: float = 10.0
    decay: float = 0.01
    warm_up: int = 1500
    power: float = 1.0
    clip: float = 0.0
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        at_least(0, self.warm_up, "optim.warm_up")
        if not 0 < self.layer_decay <= 1:
            raise PipaError(
                f"layer_decay is {self.layer_decay}", "optim", "It is above 0 and at most 1."
            )


def parameter_groups(module: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Group all parameters that require a gradient for AdamW, each once.

    Parameters with "head" in their names have the head's learning rate and decay, norms included:
    mmcv applies the first rule that matches. The pyramid on a plain transformer, which starts at
    random, has them too. Of the others, norms (by type or name) and parameters called
    `pos_block` or `position...` have no decay. The depthwise convolutions of MiT do decay. With
    `layer_decay`, the rate falls from the last layer of a backbone to its first. A module with a
    dictionary `optimiser` is a group of its own, with these settings (a discriminator).

    Args:
        module: The module with the parameters: a student, or a method with its terms.
        optim: Learning rates and decay.

    Returns:
        Groups with `params`, `lr` and `weight_decay`: at most three without `layer_decay`, and
        then those of modules with settings of their own.
    """
    separate = _separate_groups(module)
    taken = {parameter for group in separate for parameter in group["params"]}
    scale = _layer_scales(module, optim.layer_decay)
    groups: dict[tuple[float, float], dict[nn.Parameter, None]] = {}
    for prefix, owner in module.named_modules():
        for name, parameter in owner.named_parameters(prefix, recurse=False):
            if not parameter.requires_grad or parameter in taken:
                continue
            exempt = isinstance(owner, NORMS) or any(
                w in name for w in ("norm", "pos_block", "position")
            )
            if "head" in name or "pyramid" in name:
                key = optim.lr * optim.head, optim.decay
            else:
                key = optim.lr * scale.get(parameter, 1.0), 0.0 if exempt else optim.decay
            groups.setdefault(key, {})[parameter] = None
    together = [
        {"params": list(members), "lr": lr, "weight_decay": decay}
        for (lr, decay), members in groups.items()
    ]
    return together + separate


def _separate_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Return a group for each module with settings of its own."""
    groups = []
    for part in module.modules():
        settings = getattr(part, "optimiser", None)
        if isinstance(settings, dict):
            groups.append({"params": [p for p in part.parameters() if p.requires_grad], **settings})
    return groups


def _layer_scales(module: nn.Module, layer_decay: float) -> dict[nn.Parameter, float]:
    """Return the learning rate's factor for each parameter of a backbone; empty without decay."""
    scales: dict[nn.Parameter, float] = {}
    for part in module.modules() if layer_decay < 1 else ():
        if isinstance(part, Backbone):
            depths, last = part.depths(), len(part.blocks())
            scales |= {p: layer_decay ** (last - depth) for p, depth in depths.items()}
    return scales


def adamw(groups: list[dict[str, Any]], optim: Optim) -> torch.optim.AdamW:
    """Build AdamW with the papers' betas, fused into one kernel where that exists.

    The fused kernel is four times as fast on a CPU, and equal up to rounding. It is not used with
    `optim.clip`, since Lightning cannot clip gradients in mixed precision for it.

    Args:
        groups: The result of `parameter_groups`.
        optim: Decides whether gradients are clipped.
    """
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = optim.clip == 0 and devices <= FUSED
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=fused)
    optimizer.register_load_state_dict_post_hook(lay_out_as_weights)
    return optimizer


def lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded moments the memory layout of their weights, as the fused kernel needs it.

    A checkpoint has the layout of the device that wrote it (`models.layout`). The kernel on a CPU
    would take the moments of other weights, that on CUDA refuses.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def warmup_poly(step: int, steps: int, warm_up: int = 1500, power: float = 1.0) -> float:
    """Return the learning rate's factor: polynomial decay to 0, times a linear warm-up.

    Args:
        step: Number of the step, from 0.
        steps: Length of the training; the factor is 0 from there on.
        warm_up: Steps of the warm-up, which starts at 1e-6; 0: none (DAFormer: 1500).
        power: Power of the decay (DAFormer: 1; DeepLab and AdaptSegNet: 0.9).
    """
    factor: float = max(0.0, 1 - step / steps) ** power
    if step < warm_up:
        factor *= 1 - (1 - step / warm_up) * (1 - 1e-6)
    return factor
