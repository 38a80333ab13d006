"""Optical flow as KITTI writes it: a PNG of three channels of 16 bits.

Red holds columns and green rows, each as `64 * pixels + 32768`; blue is 1 where the flow is known.
Many programs that estimate flow write this form.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from pipa.errors import PipaError
from pipa.files.images import read_label, write_png

_SCALE, _ZERO = 64.0, 32768.0


def read_flow(path: Path) -> Float[np.ndarray, "h w 2"]:
    """Read rows and columns by which each pixel moves, in pixels; nan where that is not known.

    Raises:
        PipaError: The file is missing or no image, or has another form.
    """
    raw = read_label(path)
    if raw.ndim != 3 or raw.shape[2] != 3 or raw.dtype != np.uint16:
        remedy = "Write it as KITTI does: columns, rows, known, 16 bits each."
        raise PipaError("is no optical flow", path, remedy)
    flow = (raw[..., 1::-1].astype(np.float32) - np.float32(_ZERO)) / np.float32(_SCALE)
    flow[raw[..., 2] == 0] = np.nan
    return np.asarray(flow)


def write_flow(path: Path, flow: Float[np.ndarray, "h w 2"]) -> None:
    """Write rows and columns by which each pixel moves, to 1/64 pixel, whole or not at all.

    Flow that is nan, or of 511 pixels or more, is written as not known.

    Raises:
        PipaError: The file cannot be written.
    """
    known = np.nan_to_num(abs(flow), nan=np.inf).max(axis=2) < 511
    moved = np.where(known[..., None], np.rint(flow[..., ::-1] * _SCALE), 0) + _ZERO
    write_png(path, np.dstack([moved, known]).astype(np.uint16))
