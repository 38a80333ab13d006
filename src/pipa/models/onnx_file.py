"""Networks in ONNX files of `export`: used as if they were ours."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pipa.classes import LabelSpace
from pipa.errors import PipaError
from pipa.models.segmenter import Prediction, Segmenter, View


def run_onnx(path: Path, images: list[Tensor]) -> list[Tensor]:
    """Run a file on several batches of images, on the CPU.

    Raises:
        RuntimeError: onnxruntime cannot.
    """
    session = _open(path)
    with _as_runtime_error():
        return [_run(session, image) for image in images]


class OnnxSegmenter(Segmenter):
    """A network in an ONNX file; it runs on the CPU, and cannot be trained.

    Args:
        path: A file of `pipa.deploy.export`.

    Raises:
        PipaError: onnxruntime is not installed, or the file is missing or none of `export`.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise PipaError("no such file", path)
        try:
            session = _open(path)
            (_, channels, *size), (_, classes, *_) = (
                side[0].shape for side in (session.get_inputs(), session.get_outputs())
            )
            about = session.get_modelmeta().custom_metadata_map
        except ImportError as error:
            remedy = 'pip install "pipa-uda[export]" brings it.'
            raise PipaError("needs onnxruntime", path, remedy) from error
        except (RuntimeError, ValueError) as error:
            raise PipaError("is no network that `pipa export` wrote", path) from error
        if channels != 3 or not all(isinstance(side, int) for side in (*size, classes)):
            raise PipaError("is no network that `pipa export` wrote", path)
        super().__init__(classes)
        height, width = self.window = self.size = (size[0], size[1])
        self.stride = max(1, 3 * height // 4), max(1, 3 * width // 4)
        self.session = session
        if "names" in about:
            plain = {name: json.loads(about[name]) for name in ("names", "colours")}
            self.labels = LabelSpace.from_plain(plain)
        if "resize" in about:
            height, width = json.loads(about["resize"])
            self.resize = height, width

    def analyse(self, image: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Raise: an ONNX file has logits only."""
        raise PipaError("an ONNX file cannot be trained")

    def context(self, image: Float[Tensor, "b 3 h w"]) -> View:
        """Raise: an ONNX file has logits only."""
        raise PipaError("an ONNX file cannot be trained")

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of images of at most the file's size; the border is repeated below it."""
        height, width = image.shape[-2:]
        below, right = self.size[0] - height, self.size[1] - width
        filled = F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image
        return _run(self.session, filled)[..., :height, :width].to(image.device)


def _open(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with _as_runtime_error():
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: Any, image: Tensor) -> Tensor:
    (logits,) = session.run(["logits"], {"image": image.cpu().numpy()})
    return torch.from_numpy(logits)


@contextmanager
def _as_runtime_error() -> Iterator[None]:
    """Turn the errors of onnxruntime, which share no class, into RuntimeError."""
    from onnxruntime.capi import onnxruntime_pybind11_state as faults

    kinds = (
        faults.Fail,
        faults.InvalidArgument,
        faults.InvalidGraph,
        faults.InvalidProtobuf,
        faults.NoSuchFile,
        faults.NotImplemented,
        faults.RuntimeException,
    )
    try:
        yield
    except kinds as error:
        raise RuntimeError(str(error)) from error
