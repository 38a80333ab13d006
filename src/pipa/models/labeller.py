"""A network applied to batches of images of one size: class ids, and how sure it is of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor
from torch.nn import functional as F

from pipa.errors import PipaError
from pipa.models.segmenter import Segmenter
from pipa.models.windows import evaluating, slide


@dataclass(frozen=True)
class Answer:
    """What a network says of one image."""

    ids: UInt8[np.ndarray, "h w"]
    """The class of each pixel."""
    confidence: UInt8[np.ndarray, "h w"] | None
    """The probability of that class, 255 for 1, if it was asked for."""
    probabilities: Float16[np.ndarray, "k h w"] | None
    """The probability of every class, if it was asked for."""


class Labeller:
    """A network and the scale at which it sees images.

    Args:
        model: The network; its mode is restored after each batch.
        scale: Factor by which images are resized for the network; answers have the image's size.
            None: by the model's `resize`.
        confidence: Whether to compute `Answer.confidence`.
        probabilities: Whether to compute `Answer.probabilities`.

    Raises:
        PipaError: The scale is not above 0.
    """

    def __init__(
        self,
        model: Segmenter,
        *,
        scale: float | None = None,
        confidence: bool = False,
        probabilities: bool = False,
    ) -> None:
        if scale is not None and not 0 < scale < float("inf"):
            raise PipaError(f"{scale}; expected a number above 0", "scale")
        self.model, self.scale = model, scale
        self.confidence, self.probabilities = confidence, probabilities

    def __call__(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Answer]:
        """Label images of one size together.

        Args:
            images: RGB; all have the same height and width.
        """
        pixels = np.stack([self._resized(image) for image in images])
        height, width = images[0].shape[:2]
        with evaluating(self.model), torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self.model.mean.device)
            seen = batch.permute(0, 3, 1, 2).float() / 255
            logits = self.model.logits_of(seen) if self.scale is None else slide(self.model, seen)
            if logits.shape[-2:] != (height, width):
                logits = F.interpolate(logits, (height, width), mode="bilinear")
            ids = logits.argmax(1).to(torch.uint8).cpu().numpy()
            confidence, probabilities = self._sureness(logits)
        return [
            Answer(
                ids[i],
                None if confidence is None else confidence[i],
                None if probabilities is None else probabilities[i],
            )
            for i in range(len(images))
        ]

    def _sureness(self, logits: Tensor) -> tuple[np.ndarray | None, np.ndarray | None]:
        if not (self.confidence or self.probabilities):
            return None, None
        shares = logits.softmax(1)
        sure = (255 * shares.amax(1)).round().to(torch.uint8).cpu().numpy()
        every = shares.half().cpu().numpy() if self.probabilities else None
        return sure, every

    def _resized(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s t 3"]:
        if self.scale is None or self.scale == 1:
            return image
        height, width = image.shape[:2]
        size = (max(1, round(width * self.scale)), max(1, round(height * self.scale)))
        interpolation = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
