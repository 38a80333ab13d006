"""The recipe of the reference numbers: weights and inputs follow from names and shapes.

The authors' repositories ran with weights `fill(key, shape)` for each key of their state dicts;
`tests/golden` holds what came out. Arrays are float32, drawn in the order of their C layout.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Parameter or buffer `key` of the authors' state dict."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        values = 0.5 + rng.random(shape)
    elif key.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1 and key.endswith("weight"):
        values = 1 + 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        values = 0.02 * rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(1.0 / np.prod(shape[1:]))
    return np.asarray(values).astype(np.float32)


def image(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Network input, already normalised."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape).astype(np.float32)


def labels(
    name: str, b: int, h: int, w: int, block: int, n: int = 19, p_ignore: float = 0.05
) -> np.ndarray:
    """Labels (b, h * block, w * block) of squares of one class, some of them 255."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    label = rng.integers(0, n, (b, h, w))
    label[rng.random((b, h, w)) < p_ignore] = 255
    return label.repeat(block, 1).repeat(block, 2).astype(np.int64)


def state(keys: dict[str, tuple[int, ...]], prefix: str = "") -> dict[str, Tensor]:
    """The authors' state dict; `prefix` is put before keys after their values were drawn."""
    return {prefix + key: torch.from_numpy(fill(key, shape)) for key, shape in keys.items()}


def golden(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays of `tests/golden/NAME.npz`, and its `NAME.meta.json` if there is one."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = dict(file)
    meta = GOLDEN / f"{name}.meta.json"
    return arrays, json.loads(meta.read_text()) if meta.exists() else {}
