"""Export of a network to ONNX for other runtimes, compared with the original before it is kept.

The file holds one window: RGB float32 in [0, 1] of a fixed size, any number of images, to logits at
that size. The host slides windows over larger images, as `pipa.models.windows` does.
Normalisation is part of the file, so nobody can forget it.
"""

import contextlib
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipa.errors import PipaError
from pipa.models.segmenter import Segmenter
from pipa.models.windows import evaluating

NEEDED = ("onnx", "onnxruntime", "onnxscript")
LIMIT = 1e-3
"""Largest accepted difference from the original, relative to its largest logit."""


def export(model: Segmenter, out: Path, size: tuple[int, int]) -> float:
    """Write an ONNX file with input `image` (n, 3, h, w) and output `logits` (n, k, h, w).

    The file holds the classes' names and colours as metadata `names` and `colours` (JSON).
    onnxruntime runs it on two random images before it gets its name.

    Args:
        model: The network; its mode is restored.
        out: The file; an older one is replaced.
        size: Height and width of the window.

    Returns:
        The largest absolute difference between the file's logits and the original's.

    Raises:
        PipaError: The extra `export` is not installed, the network cannot be exported, the file
            cannot be written, or its logits differ by more than `LIMIT`.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"export needs {', '.join(missing)}"
        raise PipaError(problem, remedy="In pipa's folder: pip install -e '.[export]'.")
    if min(size) < 1:
        raise PipaError(f"{size}; expected height and width above 0", "size")
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, *size, generator=generator).to(model.mean.device)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with evaluating(model), torch.inference_mode():
            expected = model(image)
        part.write_bytes(_converted(model, image))
        difference = _difference(part, image, expected)
        part.replace(out)
    except OSError as error:
        raise PipaError(f"cannot be written ({error.strerror})", out) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return difference


def _converted(model: Segmenter, image: Tensor) -> bytes:
    with evaluating(model), _quiet():
        try:
            program = torch.onnx.export(
                _Forward(model),
                (image,),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes={"image": {0: torch.export.Dim("n", min=1)}},
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = str(error).strip().splitlines()[0]
            name = type(model).__name__
            raise PipaError(f"{name} cannot be exported to ONNX ({cause})") from error
    assert program is not None
    proto = program.model_proto
    if model.labels is not None:
        about = {"names": model.labels.names, "colours": model.labels.colours}
        for key, value in about.items():
            entry = proto.metadata_props.add()
            entry.key, entry.value = key, json.dumps(value)
    data: bytes = proto.SerializeToString()
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the messages of torch's exporter about its internals: they do not help a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Forward(nn.Module):
    """A module with the network's `forward` only, for the exporter."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(image)
        return logits


def _difference(path: Path, image: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference, over a batch of two images and one of one."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as faults

    images, truth = image.cpu().numpy(), expected.cpu().numpy()
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        together = session.run(["logits"], {"image": images})[0]
        alone = session.run(["logits"], {"image": images[:1]})[0]
    except (
        faults.Fail,
        faults.InvalidArgument,
        faults.InvalidGraph,
        faults.NotImplemented,
        faults.RuntimeException,
    ) as error:
        raise PipaError(
            f"onnxruntime cannot run the exported network on two images and on one ({error})",
            remedy="Nothing was written. Please report it together with `pipa doctor`.",
        ) from error
    worst = max(float(np.abs(together - truth).max()), float(np.abs(alone - truth[:1]).max()))
    largest = float(np.abs(truth).max())
    if not worst <= LIMIT * max(largest, 1e-12):
        raise PipaError(
            f"the exported network's logits differ by {worst:.2g} from the original's, which "
            f"reach {largest:.2g}",
            remedy="Nothing was written. Please report it together with `pipa doctor`.",
        )
    return worst
