"""The machine to train on: what it is, and what that means for the trainer."""

from dataclasses import dataclass
from typing import Any

import torch

from pipa.files.threads import available_cores
from pipa.models.device import pick_device

ROOM = 10.0
"""GiB of a GPU that the large network needs (DAFormer: trained on an RTX 2080 Ti of 11 GB)."""


@dataclass(frozen=True)
class Machine:
    """What there is to train on."""

    device: str
    """cpu, cuda or mps."""
    cores: int
    gib: float = 0.0
    """Memory of the GPU."""

    @property
    def is_large(self) -> bool:
        """Whether it can train a large network."""
        return self.device == "cuda" and self.gib >= ROOM

    def __str__(self) -> str:
        """Name it in a sentence."""
        if self.device == "cpu":
            return f"{self.cores} CPU {'core' if self.cores == 1 else 'cores'}"
        return f"a GPU of {self.gib:.0f} GiB" if self.gib else f"the device {self.device}"


def this_machine(device: str = "auto") -> Machine:
    """Look at the machine.

    Args:
        device: auto, cpu, cuda or mps; auto: cuda if there is one, else cpu.

    Raises:
        PipaError: There is no such device.
    """
    device = pick_device(device)
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30 if device == "cuda" else 0.0
    return Machine(device, available_cores(), gib)


def hardware(machine: Machine) -> dict[str, Any]:
    """Options of the trainer for the device."""
    if machine.device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return {"trainer.accelerator": "gpu", "trainer.devices": 1}
    name = {"cuda": "gpu"}.get(machine.device, machine.device)
    return {"trainer.accelerator": name, "trainer.devices": 1, "trainer.precision": "32-true"}
