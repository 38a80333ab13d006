"""What the benchmarks share: CPU seconds, peak memory, the machine, a table and its JSON file."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

PACKAGES = ("pipa-uda", "torch", "lightning", "transformers", "kornia")


def cpu_seconds(function: Callable[[], object], repeats: int, *, warm_up: int = 2) -> float:
    """Median CPU seconds of a call, of all threads of this process.

    Args:
        function: What to call.
        repeats: Calls that count.
        warm_up: Calls before them.
    """
    for _ in range(warm_up):
        function()
    found = []
    for _ in range(repeats):
        since = time.process_time()
        function()
        found.append(time.process_time() - since)
    return statistics.median(found)


def unit(repeats: int = 6) -> float:
    """CPU seconds of the unit that a step's cost is counted in, on this machine now.

    The unit is the forward and the backward pass of a plain `SegformerForSemanticSegmentation`
    (MiT-B0, 19 classes) on 4 images of 128 x 128.
    """
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=19)).train()
    image, label = torch.randn(4, 3, 128, 128), torch.randint(0, 19, (4, 128, 128))

    def step() -> None:
        model.zero_grad()
        model(pixel_values=image, labels=label).loss.backward()

    return cpu_seconds(step, repeats)


def reset_peak() -> float:
    """Forget the peak of resident memory so far (Linux); the memory that is resident now, MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """Peak resident memory since `reset_peak`, MiB."""
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def machine() -> dict[str, Any]:
    """The machine and the versions that a measurement belongs to."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(": ")[2] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def report(
    title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Print a table of some fields of the rows; write all of them to a JSON file.

    Args:
        title: Stands above the table.
        columns: The fields to print.
        rows: What was measured.
        path: The file; its folder is made.
    """
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(_shown(row[column]) for column in columns))
    Console(width=120).print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "rows": list(rows)}, indent=2) + "\n")
    print(f"written to {path}")


def _shown(value: Any) -> str:
    """Three digits of a number; all before the point."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
