"""The interface of every network: `forward` returns logits, `analyse` what the losses need.

A network normalises its own input (`mean`, `std` are buffers), so nobody can forget it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from pipa.batch import Box
from pipa.classes import LabelSpace
from pipa.files.images import fit_size
from pipa.models.inputs import as_batch
from pipa.models.windows import Sides, evaluating, slide

IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


@dataclass
class View:
    """Features of one crop of the input, and the crop's place in it."""

    features: list[Float[Tensor, "b _ _ _"]]
    """Maps at strides 4, 8, 16, 32 (dilated: 4, 8, 8, 8) of this crop, (b, c_i, h_i, w_i)."""
    box: Box
    """Rows and columns of the crop."""
    encoded: Float[Tensor, "b _ _ _"] | None = None
    """The encoder's map below a pyramid; None: `features` are the encoder's own."""
    fused: Float[Tensor, "b _ _ _"] | None = None
    """The decoder's map below its classifier; None: it has none, or did not run."""

    @property
    def deepest(self) -> Float[Tensor, "b _ _ _"]:
        """Return the coarsest map of the encoder itself."""
        return self.features[-1] if self.encoded is None else self.encoded

    def part(self, images: slice) -> "View":
        """Return the view of some images of the batch."""
        encoded = None if self.encoded is None else self.encoded[images]
        fused = None if self.fused is None else self.fused[images]
        return View([one[images] for one in self.features], self.box, encoded, fused)


class Decoded(NamedTuple):
    """The result of a head."""

    logits: Float[Tensor, "b k h w"]
    fused: Float[Tensor, "b _ h w"] | None = None
    """The map that the classifier sees, before dropout; None: the head has none."""


@dataclass
class Output:
    """Logits to supervise, their place in the input, and their share of the loss."""

    logits: Float[Tensor, "b k _ _"]
    box: Box
    weight: float


@dataclass
class Prediction:
    """The results of one pass through the student, for the losses."""

    outputs: list[Output]
    """Outputs to supervise; the first covers the input; weights sum to 1 (HRDA: 0.9, 0.1)."""
    context: View
    """The widest view, for feature distance and patch contrast."""
    detail: View
    """The sharpest view, for pixel contrast; without HRDA, the same object as `context`."""

    def split(self, count: int) -> "tuple[Prediction, Prediction]":
        """Return the results for the first `count` images, and those for the others."""
        return self._part(slice(count)), self._part(slice(count, None))

    def _part(self, images: slice) -> "Prediction":
        outputs = [Output(one.logits[images], one.box, one.weight) for one in self.outputs]
        context = self.context.part(images)
        detail = context if self.detail is self.context else self.detail.part(images)
        return Prediction(outputs, context, detail)


class Segmenter(nn.Module, ABC):
    """A segmentation network with `num_classes` outputs.

    Args:
        num_classes: Number of classes, k; at most 255 for `predict`.
        mean: Mean of each input channel, in units of [0, 1].
        std: Standard deviation of each input channel, in units of [0, 1].
        window: Side of the window that slides over an image in `predict`, in pixels.
        stride: Pixels from one window to the next.
        chunk: Windows that go through the network together in `predict`: memory against speed.
    """

    mean: Tensor
    std: Tensor
    backbone: Any
    """A module with `channels: list[int]` that returns four maps at strides 4, 8, 16, 32."""
    fused_channels: int | None = None
    """Channels of `View.fused`; None: the decoder has no such map."""
    config: dict[str, Any]
    """Arguments of `create_segmenter`: `create_segmenter(**config)` builds the same network."""
    labels: LabelSpace | None
    """Names and colours of the classes, if known."""
    resize: tuple[int, int] | None
    """Height and width, in either order, into which images are scaled for it to predict, as in its
    training (`data.target_resize`); None: as they are."""

    def __init__(
        self,
        num_classes: int,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        window: int = 1024,
        stride: int = 768,
        chunk: int = 1,
    ) -> None:
        super().__init__()
        if not all(isinstance(n, int) and n > 0 for n in (num_classes, window, stride, chunk)):
            raise ValueError("num_classes, window, stride and chunk are whole numbers above 0")
        self.num_classes = num_classes
        self.window: Sides = window
        self.stride: Sides = stride
        self.chunk = chunk
        self.config, self.labels, self.resize = {}, None, None
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Normalise RGB in [0, 1] to the statistics with which the backbone was trained."""
        return (image - self.mean) / self.std

    @abstractmethod
    def analyse(self, image: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Return logits to supervise and features to contrast, with their places; for training."""

    @abstractmethod
    def context(self, image: Float[Tensor, "b 3 h w"]) -> View:
        """Return the widest view only, not decoded, for patch contrast and feature distance."""

    @abstractmethod
    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits at the input's size; for use."""

    def logits_of(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of an image of any size, through windows, scaled by `resize` and back."""
        logits = slide(self, self.resized(image))
        size = image.shape[-2:]
        return logits if logits.shape[-2:] == size else F.interpolate(logits, size, mode="bilinear")

    def resized(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s t"]:
        """Return images at the size that the network sees, by `resize`."""
        size = image.shape[-2], image.shape[-1]
        seen = fit_size(size, self.resize)
        return image if seen == size else F.interpolate(image, seen, mode="bilinear")

    @overload
    def predict(self, image: list[Any] | tuple[Any, ...]) -> list[np.ndarray]: ...
    @overload
    def predict(self, image: Any) -> UInt8[np.ndarray, "*b h w"]: ...
    def predict(self, image: Any) -> Any:
        """Return class ids of RGB images of any size, through windows that overlap.

        Logits of overlapping windows are averaged; the network sees the image at the size of
        `resize`. The mode of every module is restored.

        Args:
            image: A path; a PIL image; a uint8 array (h, w, 3), or (b, h, w, 3) for a batch; a
                float tensor (3, h, w) or (b, 3, h, w) in [0, 1]; or a list of these.

        Returns:
            Class ids, uint8, at the size of the image: (h, w), or (b, h, w) for a batch; a list
            for a list, whose images may differ in size.

        Raises:
            PipaError: The input is none of these, or a file cannot be read.
        """
        if isinstance(image, list | tuple):
            return [self.predict(one) for one in image]
        pixels, is_batch = as_batch(image)
        with evaluating(self), torch.inference_mode():
            logits = self.logits_of(pixels.to(self.mean.device))
            ids = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return ids if is_batch else ids[0]
