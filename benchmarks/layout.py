"""Forward and backward of networks in both memory layouts, and in the one that they choose.

python benchmarks/layout.py [--names daformer_mit_b0 small] [--repeats 5]
    [--json runs/benchmarks/layout.json]

Batches of 2 x 128 x 128 (HRDA: 256, detail 128), random weights, one CPU thread, CPU milliseconds,
the layouts in alternation. `contiguous` and `channels_last` are of all parts of the network, `ours`
is what `use_fast_layout` makes of it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import report
from torch import nn

import pipa
from pipa.models.layout import use_fast_layout

NAMES = [
    "daformer_mit_b0",
    "segformer_mit_b0",
    "hrda_mit_b0",
    "deeplabv2_resnet_50",
    "daformer_mobilenet_v2",
    "fpn_mobilenet_v2",
    "small",
    "daformer_small",
    "hrda_small",
]


def whole(layout: torch.memory_format) -> Callable[[nn.Module], None]:
    """Lay all parts of a network out alike, and DAFormer's heads with them."""

    def change(network: nn.Module) -> None:
        network.to(memory_format=layout)
        for head in (network.head, getattr(network, "attention_head", network.head)):
            head.cpu_layout = layout

    return change


def chosen(network: nn.Module) -> None:
    """Lay each part out as its class says."""
    for part in network.children():
        part.__dict__.pop("cpu_layout", None)
    use_fast_layout(network)


LAYOUTS: dict[str, Callable[[nn.Module], None]] = {
    "contiguous": whole(torch.contiguous_format),
    "channels_last": whole(torch.channels_last),
    "ours": chosen,
}


def milliseconds(name: str, repeats: int) -> dict[str, Any]:
    """Median CPU milliseconds of forward and backward in each layout."""
    torch.manual_seed(0)
    options, side = ({"detail": 128}, 256) if name.startswith("hrda") else ({}, 128)
    network = pipa.create_segmenter(name, 19, **options)
    image = torch.rand(2, 3, side, side)
    found: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    for _ in range(repeats + 1):
        for layout, change in LAYOUTS.items():
            change(network)
            network.zero_grad()
            since = time.process_time()
            outputs = network.analyse(image).outputs
            torch.stack([output.logits.square().mean() for output in outputs]).sum().backward()
            found[layout].append(1e3 * (time.process_time() - since))
    return {"network": name} | {k: statistics.median(v[1:]) for k, v in found.items()}


def main() -> None:
    """Measure the networks, print a table, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", default=NAMES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks/layout.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [milliseconds(name, options.repeats) for name in options.names]
    title = "Forward and backward by memory layout, CPU milliseconds on one thread"
    report(title, ("network", *LAYOUTS), rows, options.json)


if __name__ == "__main__":
    main()
