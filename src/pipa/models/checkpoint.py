"""Safe reading of foreign weights: no code runs, and nothing is loaded in part."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipa.errors import PipaError
from pipa.files.odd_names import utf8_path
from pipa.models.segmenter import Segmenter


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a dictionary of `torch.save`; tensors stay on disk until they are used.

    Args:
        path: A `.ckpt` or `.pth` file.

    Raises:
        PipaError: The file is missing, damaged, or holds code.
    """
    if not path.is_file():
        raise PipaError("no such file", path)
    try:
        with warnings.catch_warnings(), utf8_path(path) as file:
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            # The format of torch before 1.6 is not a zip file and cannot be mapped.
            content = torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        foreign = re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error))
        if foreign is None:
            raise PipaError("is damaged, or no PyTorch checkpoint", path) from error
        raise PipaError(
            f"holds a Python object ({foreign[1]}) beside weights; reading it could run any code",
            path,
            "Open it where you trust it and save its state_dict alone.",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise PipaError("is damaged, or no PyTorch checkpoint", path) from error
    if not isinstance(content, Mapping):
        found = type(content).__name__
        raise PipaError(f"expected a dictionary of weights, found {found}", path)
    return dict(content)


def checkpoints_of(run: Path) -> list[Path]:
    """List the checkpoints that a run goes on from, the newest first; the list may be empty."""
    folder = run / "checkpoints"
    by_step = sorted(folder.glob("step*.ckpt"), key=lambda file: (len(file.stem), file.stem))
    return [file for file in (folder / "last.ckpt", *reversed(by_step)) if file.is_file()]


def build_with(
    build: Callable[[], Segmenter], state: Mapping[str, Tensor], where: Path
) -> Segmenter:
    """Build a network with exactly these weights; torch's random state is restored.

    Args:
        build: Makes the network.
        state: All its parameters and buffers by name.
        where: The file that an error names.

    Raises:
        PipaError: A name is missing or unexpected, or a shape differs.
    """
    # Random weights cost half a second for the largest network; torch's imports for its "meta"
    # device cost more.
    with torch.random.fork_rng(devices=[]):
        model = build()
    check_names(model.state_dict(), state, where)
    model.load_state_dict(state)
    return model


def check_names(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], where: Path) -> None:
    """Check that both have the same names and shapes.

    Raises:
        PipaError: Names are missing, unexpected, or of another shape; the error lists them.
    """
    shapes = [
        f"{name} {tuple(theirs[name].shape)} instead of {tuple(ours[name].shape)}"
        for name in ours
        if name in theirs and theirs[name].shape != ours[name].shape
    ]
    faults = {
        "missing": sorted(set(ours) - set(theirs)),
        "unexpected": sorted(set(theirs) - set(ours)),
        "of another shape": shapes,
    }
    found = "; ".join(f"{kind}: {_shortened(names)}" for kind, names in faults.items() if names)
    if found:
        raise PipaError(f"does not fit the network; {found}", where)


def _shortened(names: list[str], maximum: int = 8) -> str:
    rest = f" and {len(names) - maximum} more" if len(names) > maximum else ""
    return ", ".join(names[:maximum]) + rest
