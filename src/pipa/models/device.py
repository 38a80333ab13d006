"""The device that a network runs on."""

import torch

from pipa.errors import PipaError


def pick_device(name: str = "auto") -> str:
    """Return the device of a name; for auto, cuda if there is a GPU, else cpu.

    Args:
        name: auto, cpu, cuda or mps.

    Raises:
        PipaError: There is no such device here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]  # cuda:1 is the second GPU
    known = kind in ("cpu", "cuda", "mps")
    if not known or (kind != "cpu" and not getattr(torch, kind).is_available()):
        raise PipaError(f"there is no {name} here", "--device", "`pipa doctor` lists devices.")
    return name
