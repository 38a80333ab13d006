"""ONNX files in 8 bits: a quarter of the size, at some cost in mIoU."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pipa.deploy.export import quiet, refuse_without
from pipa.errors import PipaError
from pipa.files.writing import replacing
from pipa.models.onnx_file import OnnxSegmenter

QUANTISED = ("Conv", "MatMul", "Gemm")
"""Operators that hold the weights; norms and interpolation stay in float32."""


def quantise(path: Path, out: Path, images: Iterable[Float[Tensor, "3 h w"]]) -> None:
    """Write an INT8 file (QDQ) from one of `export`; ranges of activations are those on images.

    Args:
        path: The ONNX file.
        out: The file to write.
        images: Images to calibrate on, RGB in [0, 1], of any size: they are resized by the file's
            `resize`, windows of its size are cut from their middle, and smaller images repeated at
            the border.

    Raises:
        PipaError: The extra `export` is not installed, there is no image, or `out` cannot be
            written.
    """
    refuse_without(("onnx", "onnxruntime"))
    import onnx
    from onnxruntime.quantization import QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(path)
    network = OnnxSegmenter(path)
    height, width = network.size
    windows = [_middle(network.resized(image[None]), height, width) for image in images]
    if not windows:
        raise PipaError("there is no image to calibrate on", "--int8")
    try:
        with replacing(out) as part, tempfile.TemporaryDirectory() as folder, quiet():
            ready = Path(folder) / "ready.onnx"
            quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(part),
                _Reader(windows),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
            )
            written = onnx.load(part)
            del written.metadata_props[:]
            written.metadata_props.extend(model.metadata_props)
            onnx.save(written, part)
    except OSError as error:
        raise PipaError(f"cannot be written ({error.strerror})", out) from error


class _Reader:
    """The windows, one after the other, as onnxruntime asks for them."""

    def __init__(self, windows: list[Float[np.ndarray, "1 3 h w"]]) -> None:
        self.windows = iter(windows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        window = next(self.windows, None)
        return None if window is None else {"image": window}


def _middle(
    image: Float[Tensor, "1 3 s t"], height: int, width: int
) -> Float[np.ndarray, "1 3 h w"]:
    """Cut a window from the middle; repeat the border of a smaller image."""
    top, left = max(0, image.shape[2] - height) // 2, max(0, image.shape[3] - width) // 2
    crop = image[..., top : top + height, left : left + width]
    below, right = height - crop.shape[2], width - crop.shape[3]
    filled = F.pad(crop, (0, right, 0, below), mode="replicate")
    return filled.float().cpu().numpy()
