"""Prediction for files, folders, globs and videos, written as pictures.

Every file appears whole or not at all. `Segmenter.predict` slides windows and averages them.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from pipa.classes import Colour
from pipa.errors import PipaError
from pipa.files.images import IMAGE_SUFFIXES, read_image, write_png
from pipa.files.paint import colourise, distinct_colours, overlay
from pipa.models.segmenter import Segmenter

KINDS = ("ids", "colour", "overlay")
"""Kinds of output: PNG of class ids with a palette; RGB colours; colours over the image."""
VIDEO_SUFFIXES = frozenset([".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"])
"""Suffixes of videos (lower case)."""


def predict(
    model: Segmenter,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    kinds: Sequence[str] = KINDS,
    scale: float = 1.0,
    alpha: float = 0.5,
) -> Iterator[tuple[Path, list[Path]]]:
    """Label images of any size and videos; write OUT/KIND/NAME.png, one input at a time.

    Folders below those of the inputs are kept, so that a/x.png and b/x.png do not collide; x.png
    beside x.jpg become x.png.png and x.jpg.png. A video becomes OUT/overlay/NAME.mp4 only. All
    inputs are found before the first is read; the outputs of an earlier run are never inputs.

    Args:
        model: The network; if its `labels` are None, colours are made up.
        inputs: Images, videos, folders of them (searched at any depth), or glob patterns.
        out: Folder to write to; it is made. Older files of the same names are replaced.
        kinds: The kinds of output for images, some of `KINDS`.
        scale: Factor by which images are resized for the network; outputs keep the input's size.
        alpha: Weight of the class's colour in an overlay, 0..1.

    Yields:
        Each input and the files written for it.

    Raises:
        PipaError: An input is missing or unreadable, or an output cannot be written.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown or not kinds:
        raise PipaError(f"kinds {sorted(unknown)}; expected some of {', '.join(KINDS)}", "kinds")
    if not 0 < scale < float("inf"):
        raise PipaError(f"{scale}; expected a number above 0", "scale")
    labeller = Labeller(model, scale, alpha)
    jobs = plan(inputs, out)
    _make_folder(out)
    return (
        (
            job.source,
            _video(labeller, job, out) if job.is_video else _image(labeller, job, out, kinds),
        )
        for job in jobs
    )


@dataclass(frozen=True)
class Job:
    """One input and the name of its outputs, relative to OUT/KIND, without a suffix."""

    source: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether the suffix is that of a video."""
        return self.source.suffix.lower() in VIDEO_SUFFIXES

    def output(self, out: Path, kind: str, suffix: str) -> Path:
        """Return the path of one kind of output."""
        return out / kind / self.name.parent / f"{self.name.name}{suffix}"


class Labeller:
    """A network with the colours of its classes and the scale at which it sees images."""

    def __init__(self, model: Segmenter, scale: float, alpha: float) -> None:
        known = model.labels
        self.colours: Sequence[Colour] = (
            distinct_colours(model.num_classes) if known is None else known.colours
        )
        self.model, self.scale, self.alpha = model, scale, alpha

    def ids(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        """Predict class ids at the image's size."""
        if self.scale == 1:
            return self.model.predict(image)
        height, width = image.shape[:2]
        size = (max(1, round(width * self.scale)), max(1, round(height * self.scale)))
        interpolation = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        seen = np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)
        ids = cv2.resize(self.model.predict(seen), (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(ids, np.uint8)

    def overlay(
        self, image: UInt8[np.ndarray, "h w 3"], ids: UInt8[np.ndarray, "h w"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Blend the colours of the classes into the image."""
        return overlay(image, ids, self.colours, self.alpha)


def plan(inputs: Sequence[str | Path], out: Path) -> list[Job]:
    """Find all files and name their outputs; inputs keep their order, a folder is sorted.

    Raises:
        PipaError: An input does not exist, or a folder or pattern has no images or videos.
    """
    found: dict[Path, Path] = {}
    roots = []
    for given in inputs:
        root, files = _expand(Path(given), out)
        roots.append(root)
        found |= {Path(os.path.abspath(file)): file for file in files}
    base = os.path.commonpath(roots) if roots else ""
    names = {path: Path(os.path.relpath(path, base)) for path in found}
    stems = Counter(name.with_suffix("") for name in names.values())
    return [
        Job(found[path], name if stems[name.with_suffix("")] > 1 else name.with_suffix(""))
        for path, name in names.items()
    ]


def _expand(given: Path, out: Path) -> tuple[Path, list[Path]]:
    """Return the absolute folder to which an input's names are relative, and its files."""
    absolute = Path(os.path.abspath(given))
    if given.is_file():
        return absolute.parent, [given]
    if given.is_dir():
        files = _media(given, out)
        if not files:
            raise PipaError("no images or videos in this folder", given, _SUFFIXES)
        return absolute, files
    if not glob.has_magic(str(given)):
        raise PipaError("no such file or folder", given)
    matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
    files = [match for match in matches if match.is_file() and _is_medium(match)]
    if not files:
        raise PipaError("no images or videos match this pattern", given, _SUFFIXES)
    parents = [os.path.dirname(os.path.abspath(file)) for file in files]
    return Path(os.path.commonpath(parents)), files


_SUFFIXES = f"Looked for {' '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}."


def _media(folder: Path, out: Path) -> list[Path]:
    """List images and videos at any depth, but not hidden files and the outputs of `predict`."""
    ours = {Path(os.path.abspath(out / kind)) for kind in KINDS}
    inside = not ours.isdisjoint(_with_parents(folder))
    return [
        file
        for file in sorted(folder.rglob("*"))
        if _is_medium(file) and file.is_file()
        if inside or ours.isdisjoint(_with_parents(file))
    ]


def _with_parents(path: Path) -> set[Path]:
    absolute = Path(os.path.abspath(path))
    return {absolute, *absolute.parents}


def _is_medium(file: Path) -> bool:
    suffix = file.suffix.lower()
    return not file.name.startswith(".") and suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _image(labeller: Labeller, job: Job, out: Path, kinds: Sequence[str]) -> list[Path]:
    image = read_image(job.source)
    ids = labeller.ids(image)
    written = []
    for kind in kinds:
        path = job.output(out, kind, ".png")
        _make_folder(path.parent)
        if kind == "ids":
            write_png(path, ids, palette=np.asarray(labeller.colours, np.uint8))
        elif kind == "colour":
            write_png(path, colourise(ids, labeller.colours))
        else:
            write_png(path, labeller.overlay(image, ids))
        written.append(path)
    return written


def _video(labeller: Labeller, job: Job, out: Path) -> list[Path]:
    path = job.output(out, "overlay", ".mp4")
    _make_folder(path.parent)
    part = path.with_name(
        f".{path.name}.{os.getpid()}.part.mp4"
    )  # the suffix decides the container
    try:
        with closing(_Reader(job.source)) as frames, closing(_Writer(part, frames.rate)) as sink:
            for frame in frames:
                sink.write(labeller.overlay(frame, labeller.ids(frame)))
        if not frames.count:
            raise PipaError(
                "no frame could be read; the file is not a video, or broken", job.source
            )
        part.replace(path)
    except OSError as error:
        raise PipaError(f"cannot be written ({error.strerror})", path) from error
    finally:
        part.unlink(missing_ok=True)
    return [path]


class _Reader:
    """Frames of a video file as RGB."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # our error says the same
        self.capture = cv2.VideoCapture(str(path))
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if rate > 0 else 25.0
        self.count = 0

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        while True:
            ok, frame = self.capture.read()
            if not ok:
                return
            self.count += 1
            yield np.ascontiguousarray(frame[..., ::-1])

    def close(self) -> None:
        self.capture.release()


class _Writer:
    """A video file whose size is that of the first frame."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self.sink: cv2.VideoWriter | None = None

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        if self.sink is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            size = (frame.shape[1], frame.shape[0])
            self.sink = cv2.VideoWriter(str(self.path), code, self.rate, size)
            if not self.sink.isOpened():
                raise PipaError("cannot be written as a video", self.path.parent)
        self.sink.write(np.ascontiguousarray(frame[..., ::-1]))

    def close(self) -> None:
        if self.sink is not None:
            self.sink.release()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipaError(
            f"the folder cannot be made ({error.strerror})", folder, "Choose another --out."
        ) from error
