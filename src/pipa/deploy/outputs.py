"""What prediction writes for an image: one function for each kind of output."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pipa.classes import CITYSCAPES, CITYSCAPES_IDS, Colour, LabelSpace
from pipa.errors import PipaError
from pipa.files.images import write_png
from pipa.files.paint import colourise, distinct_colours, overlay
from pipa.files.writing import write_bytes
from pipa.models.labeller import Answer
from pipa.models.segmenter import Segmenter

KINDS = {
    "ids": ".png",
    "colour": ".png",
    "overlay": ".png",
    "confidence": ".png",
    "probabilities": ".npy",
    "cityscapes": ".png",
}
"""Kinds of output and their suffixes: PNG of class ids with a palette; RGB colours; colours over
the image; probability of the class, 255 for 1, in grey; probabilities of all classes, float16
(k, h, w); label ids of Cityscapes, as its test server takes them."""
DEFAULT = ("ids", "colour", "overlay")
"""The kinds that are written unless others are named."""
IN_VIDEOS = ("overlay", "colour", "confidence")
"""The kinds that a video may have."""


class Painter:
    """The outputs of one network.

    Args:
        model: The network; if its `labels` are None, colours are made up.
        kinds: The kinds of output, some of `KINDS`.
        alpha: Weight of the class's colour in an overlay, 0..1.

    Raises:
        PipaError: A kind is unknown, there is none, or "cityscapes" is asked of other classes.
    """

    def __init__(self, model: Segmenter, kinds: Sequence[str], alpha: float) -> None:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds:
            raise PipaError(f"kinds {unknown}; expected some of {', '.join(KINDS)}", "kinds")
        self.kinds, self.alpha = tuple(dict.fromkeys(kinds)), alpha
        labels = model.labels
        self.colours: Sequence[Colour] = (
            distinct_colours(model.num_classes) if labels is None else labels.colours
        )
        self.label_ids = _label_ids(labels) if "cityscapes" in self.kinds else None

    def picture(
        self, kind: str, image: UInt8[np.ndarray, "h w 3"], answer: Answer
    ) -> UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]:
        """Return the picture of one of the kinds that a video may have."""
        if kind == "overlay":
            return overlay(image, answer.ids, self.colours, self.alpha)
        if kind == "colour":
            return colourise(answer.ids, self.colours)
        assert answer.confidence is not None
        return answer.confidence

    def write(
        self, path: Path, kind: str, image: UInt8[np.ndarray, "h w 3"], answer: Answer
    ) -> None:
        """Write one kind of output for an image, whole or not at all.

        Raises:
            PipaError: The file cannot be written.
        """
        if kind == "ids":
            write_png(path, answer.ids, palette=np.asarray(self.colours, np.uint8))
        elif kind == "cityscapes":
            assert self.label_ids is not None
            write_png(path, self.label_ids[answer.ids])
        elif kind == "probabilities":
            assert answer.probabilities is not None
            content = io.BytesIO()
            np.save(content, answer.probabilities)
            write_bytes(path, content.getvalue())
        else:
            write_png(path, self.picture(kind, image, answer))


def _label_ids(labels: LabelSpace | None) -> UInt8[np.ndarray, " 256"]:
    """Return Cityscapes' label id of each class, which it must have under the same name."""
    known = dict(zip(CITYSCAPES.names, CITYSCAPES_IDS, strict=True))
    names = () if labels is None else labels.names
    foreign = [name for name in names if name not in known]
    if foreign or not names:
        found = ", ".join(foreign) or "unnamed"
        problem = f"the network's classes are not those of Cityscapes ({found})"
        raise PipaError(problem, "cityscapes", "Write ids instead.")
    table = np.zeros(256, np.uint8)
    table[: len(names)] = [known[name] for name in names]
    return table
