"""Export of a network for other runtimes, compared with the original before it is kept.

The file holds one window: RGB float32 in [0, 1] of a fixed size, any number of images, to logits at
that size. The host slides windows over larger images, as `pipa.models.windows` does.
Normalisation is part of the file, so nobody can forget it.
"""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipa.errors import PipaError, first_line
from pipa.files.writing import replacing
from pipa.models.onnx_file import OnnxSegmenter, run_onnx
from pipa.models.segmenter import Segmenter
from pipa.models.windows import evaluating

Format = Literal["onnx", "torch"]
Write = Callable[[Segmenter, Tensor, Path], None]
Runner = Callable[[Path, list[Tensor]], list[Tensor]]
NEEDED = ("onnx", "onnxruntime", "onnxscript")
"""The packages that ONNX needs: the extra `export`."""
LIMIT = 1e-4
"""Largest accepted difference from the original, relative to its largest logit."""
DYNAMIC = {"image": {0: torch.export.Dim("n", min=1)}}


def export(model: Segmenter, out: Path, size: tuple[int, int], *, format: Format = "onnx") -> float:
    """Write a file with input `image` (n, 3, h, w) and output `logits` (n, k, h, w).

    An ONNX file holds the classes' names and colours as metadata `names` and `colours` (JSON), a
    program of `torch.export` as an extra file `labels.json`; so is `resize` of the model: the host
    scales images to fit into it before it slides windows over them. The file runs on two random
    images and on one of them before it gets its name.

    Args:
        model: The network, on the CPU; its mode is restored.
        out: The file; an older one is replaced.
        size: Height and width of the window.
        format: "onnx", or "torch" for a program that `torch.export.load` reads without pipa.

    Returns:
        The largest absolute difference between the file's logits and the original's.

    Raises:
        PipaError: The extra `export` is not installed, the network cannot be exported (one of an
            ONNX file never can), the file cannot be written, or its logits differ by more than
            `LIMIT`.
    """
    if isinstance(model, OnnxSegmenter):
        remedy = "Give the run or the model that it was exported from."
        raise PipaError("an ONNX file cannot be exported again", remedy=remedy)
    if format == "onnx":
        refuse_without(NEEDED)
    if min(size) < 1:
        raise PipaError(f"{size}; expected height and width above 0", "size")
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, *size, generator=generator).to(model.mean.device)
    write, run = FORMATS[format]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as part:
            with evaluating(model), torch.inference_mode():
                expected = model(image)
            with evaluating(model), quiet():
                write(model, image, part)
            difference = _difference(run, part, image, expected)
    except OSError as error:
        raise PipaError(f"cannot be written ({error.strerror})", out) from error
    return difference


def refuse_without(packages: tuple[str, ...]) -> None:
    """Check that packages of the extra `export` are installed.

    Raises:
        PipaError: One is not.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"export needs {', '.join(missing)}"
        raise PipaError(problem, remedy='pip install "pipa-uda[export]" brings it.')


def _write_onnx(model: Segmenter, image: Tensor, path: Path) -> None:
    try:
        program = torch.onnx.export(
            _Forward(model),
            (image,),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=DYNAMIC,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _cannot(model, "ONNX", error) from error
    assert program is not None
    proto = program.model_proto
    for key, value in _about(model).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    path.write_bytes(proto.SerializeToString())


def _write_torch(model: Segmenter, image: Tensor, path: Path) -> None:
    try:
        program = torch.export.export(_Forward(model), (image,), dynamic_shapes=DYNAMIC)
    except (RuntimeError, ValueError) as error:  # its own errors are among the former
        raise _cannot(model, "a torch program", error) from error
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"labels.json": json.dumps(_about(model))})


def _about(model: Segmenter) -> dict[str, Any]:
    about: dict[str, Any] = {} if model.resize is None else {"resize": model.resize}
    return about if model.labels is None else about | model.labels.as_plain()


def _cannot(model: Segmenter, what: str, error: Exception) -> PipaError:
    name = type(model).__name__
    return PipaError(f"{name} cannot be exported to {what} ({first_line(error)})")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what the exporters say of their internals: it does not help a user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class _Forward(nn.Module):
    """A module with the network's `forward` only, for the exporter."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(image)
        return logits


def _run_torch(path: Path, images: list[Tensor]) -> list[Tensor]:
    with path.open("rb") as file, torch.inference_mode():
        program = torch.export.load(file).module()
        return [program(image) for image in images]


FORMATS: dict[Format, tuple[Write, Runner]] = {
    "onnx": (_write_onnx, run_onnx),
    "torch": (_write_torch, _run_torch),
}
"""How each format is written, and run."""


def _difference(run: Runner, path: Path, image: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference, over a batch of two images and one of one."""
    remedy = "Nothing was written. Please report it together with `pipa doctor`."
    try:
        together, alone = run(path, [image, image[:1]])
    except (RuntimeError, ValueError) as error:
        problem = f"the exported network cannot be run on two images and on one ({error})"
        raise PipaError(problem, remedy=remedy) from error
    pairs = ((together, expected), (alone, expected[:1]))
    worst = max(float((found - truth).abs().max()) for found, truth in pairs)
    largest = float(expected.abs().max())
    if not worst <= LIMIT * max(largest, 1e-12):
        problem = (
            f"the exported network's logits differ by {worst:.2g} from the original's, which "
            f"reach {largest:.2g}"
        )
        raise PipaError(problem, remedy=remedy)
    return worst
