"""What the processes of one run share: averaged gradients and statistics, and each other's rows.

Every process takes a step on a batch of its own. `average` then makes gradients, running
statistics and losses the same everywhere, and banks are filled with the rows of all: any process
can write the checkpoint, and all find the same fault. With one process nothing happens here.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipa.uda.teacher import ShareAlignment


def process_count() -> int:
    """Return the number of processes of the run."""
    together = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if together else 1


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Average tensors over all processes, in place, in one all-reduce.

    Args:
        tensors: The same number and shapes in every process, of one type and one device.
    """
    if process_count() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= process_count()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    same = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
    torch._foreach_copy_(list(tensors), same)


def running_statistics(module: nn.Module) -> list[Tensor]:
    """Return the buffers that follow the data: of batch norms in training, and class shares."""
    found: list[Tensor] = []
    for part in module.modules():
        if isinstance(part, ShareAlignment):
            found += [part.source, part.predicted]
        elif isinstance(part, _BatchNorm) and part.training and part.running_mean is not None:
            assert part.running_var is not None
            found += [part.running_mean, part.running_var]
    return found


def of_all(tensor: Shaped[Tensor, "n *d"]) -> Shaped[Tensor, "p n *d"]:
    """Return this tensor of every process, in the order of their ranks, as constants."""
    tensor = tensor.detach().contiguous()
    if process_count() == 1:
        return tensor[None]
    found = tensor.new_empty(process_count() * len(tensor), *tensor.shape[1:])
    distributed.all_gather_into_tensor(found, tensor)
    return found.view(process_count(), *tensor.shape)


def of_others(tensor: Shaped[Tensor, "n *d"]) -> Shaped[Tensor, "m *d"]:
    """Return the rows of the other processes, as constants: `m = (processes - 1) * n`."""
    rank = distributed.get_rank() if process_count() > 1 else 0
    every = of_all(tensor)
    return torch.cat([every[:rank], every[rank + 1 :]]).flatten(0, 1)


def in_turn(tensor: Shaped[Tensor, "n *d"]) -> Shaped[Tensor, "m *d"]:
    """Return the first row of every process, then the second, and so on: the same everywhere."""
    return of_all(tensor).transpose(0, 1).flatten(0, 1)
