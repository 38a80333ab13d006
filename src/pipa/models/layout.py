"""How the weights of a network lie in memory: one of the two layouts is faster, and which depends.

On a CPU dilated depthwise convolutions take three times as long in channels_last, and most other
convolutions of small networks less; `benchmarks/layout.py` measures it. Results differ by
rounding only.
"""

import torch
from torch import nn


def use_fast_layout(network: nn.Module, device: torch.device | str = "cpu") -> None:
    """Lay each part of a network out as is fastest where it will run.

    Args:
        network: A segmenter; changed in place, its parameters stay the same objects. Its parts
            (backbone, heads) say by `cpu_layout` what they gain from on a CPU.
        device: Where it will run. On CUDA everything is channels_last, as its kernels want it.
    """
    on_cpu = torch.device(device).type == "cpu"
    for part in network.children():
        layout = part.cpu_layout if on_cpu else torch.channels_last
        part.to(memory_format=layout)  # type: ignore[call-overload]
