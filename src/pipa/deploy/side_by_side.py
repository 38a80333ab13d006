"""One network, or two, on the same image or video: pictures to compare, and shares of the classes.

Everything that comes in is limited, because it may come from somebody's browser.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image as Pillow

from pipa.classes import Colour
from pipa.deploy.outputs import Painter
from pipa.deploy.plan import VIDEO_SUFFIXES
from pipa.deploy.video import VideoReader, VideoWriter
from pipa.errors import PipaError
from pipa.files.images import read_image
from pipa.models.labeller import Answer, Labeller
from pipa.models.segmenter import Segmenter

Image = UInt8[np.ndarray, "_ _ 3"]
Shown = Literal["overlay", "confidence"]


@dataclass(frozen=True)
class Limits:
    """What is accepted."""

    megabytes: int = 50
    """Largest file, in MiB."""
    pixels: int = 50_000_000
    """Most pixels of an image or a frame, before it is decoded."""
    side: int = 2048
    """Longer side, in pixels, to which images and frames are reduced."""
    frames: int = 300
    """Most frames of a video."""


LIMITS = Limits()


@dataclass(frozen=True)
class Row:
    """What the networks say of one class; each tuple has a value for each network."""

    name: str
    colour: Colour
    shares: tuple[float, ...]
    """Share of the pixels, 0..1."""
    confidence: tuple[float | None, ...]
    """Mean probability of the class where it is predicted; None: it is nowhere predicted."""


@dataclass(frozen=True)
class Legend:
    """The classes that occur, the most frequent first, and a summary."""

    rows: tuple[Row, ...]
    confidence: tuple[float, ...]
    """Mean probability of the predicted class, for each network."""
    same: float | None
    """Share of the pixels for which two networks predict the same class."""


@dataclass(frozen=True)
class LabelledImage:
    """An image, and what each network says of it."""

    image: Image
    answers: tuple[Answer, ...]


class SideBySide:
    """One network, or two with the same classes.

    Args:
        models: The networks by name, one or two.
        scale: Factor by which images are resized for the networks. None: by the `resize` of each.
        limits: What is accepted.

    Raises:
        PipaError: The networks predict different classes, or the scale is not above 0.
    """

    def __init__(
        self,
        models: Mapping[str, Segmenter],
        *,
        scale: float | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        first, *rest = models.values()
        if any(_classes(model) != _classes(first) for model in rest):
            remedy = "Compare networks of one label space."
            raise PipaError("predict different classes", " and ".join(models), remedy)
        self.names, self.limits = tuple(models), limits
        self.classes = _classes(first)
        self.colours = Painter(first, ("overlay",), 0.5).colours
        self._first = first
        self._labellers = [Labeller(m, scale=scale, confidence=True) for m in models.values()]

    def read(self, path: Path) -> Image:
        """Read an image, reduced to the limits.

        Raises:
            PipaError: It is too large, or no image.
        """
        self._check_bytes(path)
        try:
            with Pillow.open(path) as picture:  # reads the size without decoding
                width, height = picture.size
        except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning):
            raise self._too_many_pixels(path) from None
        except OSError:
            remedy = "Take a JPEG, PNG or WebP."
            raise PipaError("is neither an image nor a video that is read", path, remedy) from None
        self._check_pixels(path, height * width)
        return self._reduced(read_image(path))

    def label(self, image: Image) -> LabelledImage:
        """Ask every network."""
        return LabelledImage(image, tuple(labeller([image])[0] for labeller in self._labellers))

    def pictures(self, labelled: LabelledImage, view: Shown, alpha: float) -> tuple[Image, Image]:
        """Return two pictures to compare: of two networks, or the image and that of the one.

        Args:
            labelled: An image, labelled.
            view: Classes over the image, or the confidence in grey: white for 1.
            alpha: Weight of the class's colour, 0..1.
        """
        painter = Painter(self._first, (view,), alpha)
        painted = [painter.picture(view, labelled.image, answer) for answer in labelled.answers]
        left, right = [labelled.image, *painted][-2:]
        return _rgb(left), _rgb(right)

    def legend(self, labelled: LabelledImage) -> Legend:
        """Count the classes of an image."""
        return _Count(len(self.classes), labelled.answers).legend(self.classes, self.colours)

    def video(
        self,
        path: Path,
        out: Path,
        *,
        view: Shown = "overlay",
        alpha: float = 0.5,
        tick: Callable[[int, int], None] = lambda done, count: None,
    ) -> Legend:
        """Label a video; write a WebM whose frames hold two pictures beside each other.

        Args:
            path: The video.
            out: The file to write.
            view: As in `pictures`.
            alpha: As in `pictures`.
            tick: Called with the number of finished frames, and all, as far as the file tells.

        Returns:
            The legend of all frames.

        Raises:
            PipaError: It is too large or too long, or no video, or cannot be written.
        """
        self._check_bytes(path)
        with VideoReader(path) as reader, VideoWriter(out, reader.rate) as sink:
            self._check_pixels(path, reader.stream.width * reader.stream.height)
            self._check_frames(path, reader.estimate)
            count = _Count(len(self.classes))
            for done, frame in enumerate(reader, start=1):
                self._check_frames(path, done)  # a file may lie about its length
                labelled = self.label(self._reduced(frame))
                count.add(labelled.answers)
                sink.write(np.hstack(self.pictures(labelled, view, alpha)))
                tick(done, max(done, reader.estimate))
        return count.legend(self.classes, self.colours)

    def _reduced(self, image: Image) -> Image:
        height, width = image.shape[:2]
        factor = self.limits.side / max(height, width)
        if factor >= 1:
            return image
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

    def _check_bytes(self, path: Path) -> None:
        if path.stat().st_size > self.limits.megabytes * 2**20:
            raise PipaError(f"is larger than {self.limits.megabytes} MB", path, "Take a smaller.")

    def _check_pixels(self, path: Path, pixels: int) -> None:
        if pixels > self.limits.pixels:
            raise self._too_many_pixels(path)

    def _too_many_pixels(self, path: Path) -> PipaError:
        most = self.limits.pixels // 1_000_000
        return PipaError(f"has more than {most} million pixels", path, "Take a smaller.")

    def _check_frames(self, path: Path, frames: int) -> None:
        if frames > self.limits.frames:
            remedy = "Cut it, or use `pipa predict`."
            raise PipaError(f"has more than {self.limits.frames} frames", path, remedy)


def is_video(path: Path) -> bool:
    """Whether the suffix is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


class _Count:
    """Pixels of each class, and the sum of their probabilities, for each network."""

    def __init__(self, classes: int, answers: Sequence[Answer] = ()) -> None:
        self.classes, self.same, self.total = classes, 0, 0
        self.pixels: np.ndarray | None = None
        self.sure: np.ndarray | None = None
        if answers:
            self.add(answers)

    def add(self, answers: Sequence[Answer]) -> None:
        pixels, sure = [], []
        for answer in answers:
            assert answer.confidence is not None
            ids, weights = answer.ids.ravel(), answer.confidence.ravel() / 255
            pixels.append(np.bincount(ids, minlength=self.classes))
            sure.append(np.bincount(ids, weights, minlength=self.classes))
        self.pixels = np.array(pixels) if self.pixels is None else self.pixels + pixels
        self.sure = np.array(sure) if self.sure is None else self.sure + sure
        self.same += int((answers[0].ids == answers[-1].ids).sum())
        self.total += answers[0].ids.size

    def legend(self, names: Sequence[str], colours: Sequence[Colour]) -> Legend:
        assert self.pixels is not None
        assert self.sure is not None
        shares = self.pixels / self.total
        order = [int(k) for k in np.argsort(-shares.sum(0), kind="stable") if shares[:, k].any()]
        rows = [
            Row(
                names[k],
                colours[k],
                tuple(shares[:, k].tolist()),
                tuple(
                    float(sure / pixels) if pixels else None
                    for sure, pixels in zip(self.sure[:, k], self.pixels[:, k], strict=True)
                ),
            )
            for k in order
        ]
        mean = tuple((self.sure.sum(1) / self.total).tolist())
        return Legend(tuple(rows), mean, self.same / self.total if len(mean) > 1 else None)


def _classes(model: Segmenter) -> tuple[str, ...]:
    if model.labels is None:
        return tuple(f"class {k}" for k in range(model.num_classes))
    return model.labels.names


def _rgb(picture: np.ndarray) -> Image:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
