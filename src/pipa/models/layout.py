"""Memory layout of a network's weights: which of the two is faster depends on network and device.

On a CPU each part has the layout in which `benchmarks/layout.py` found it faster. Results differ
only by rounding.
"""

import torch
from torch import nn


def use_fast_layout(network: nn.Module, device: torch.device | str = "cpu") -> None:
    """Give each part of a network the memory layout that is fastest on a device.

    Args:
        network: A segmenter, changed in place; its parameters stay the same objects. The layout of
            its parts (backbone, heads) on a CPU is their `cpu_layout`;
            a part of the user's own has torch's.
        device: The device. On CUDA everything is channels_last, which its kernels prefer.
    """
    on_cpu = torch.device(device).type == "cpu"
    for part in network.children():
        layout = (
            getattr(part, "cpu_layout", torch.contiguous_format) if on_cpu else torch.channels_last
        )
        part.to(memory_format=layout)  # type: ignore[call-overload]
