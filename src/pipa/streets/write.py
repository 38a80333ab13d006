"""Writing of Streets in the plain folder layout, so that it is read like users' own data.

classes.yaml; source/{images,labels}; target/images; val/{images,labels}; test/{images,labels}. The
target has no labels, so that nothing can read them by accident. No two splits share a seed.

As a video the target is target/images/SEQUENCE/FRAME.png, with optical flow to the frame after and
before in target/flow_next and target/flow_previous, in KITTI's form (`files.flow`).
"""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from pipa.errors import PipaError
from pipa.files.flow import write_flow
from pipa.files.images import write_png
from pipa.streets.render import Domain, check_arguments, street, street_frames

_ROOM = 1_000_000  # seeds of one split


class _Split(NamedTuple):
    name: str
    domain: Domain
    labelled: bool


_SPLITS = (
    _Split("source", "game", True),
    _Split("target", "camera", False),
    _Split("val", "camera", True),
    _Split("test", "camera", True),
)


class _Job(NamedTuple):
    """One image to write, or one sequence of them."""

    seed: int
    domain: Domain
    image: Path
    """The file of the image; the folder of the sequence."""
    label: Path | None
    frames: int = 1


def write_streets(
    folder: Path,
    *,
    source: int = 200,
    target: int = 400,
    validation: int = 100,
    test: int = 200,
    height: int = 128,
    width: int = 256,
    gap: float = 0.5,
    seed: int = 0,
    frames: int = 1,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write Streets as a folder data set, whole or not at all.

    The files depend on the arguments alone, not on the number of processes.

    Args:
        folder: Folder to write to; new or empty.
        source: Number of labelled images with the game's look.
        target: Number of images, without labels, with the camera's look.
        validation: Number of labelled images with the camera's look, in `val`.
        test: Number of labelled images with the camera's look, in `test`.
        height: Rows of each image.
        width: Columns of each image.
        gap: Distance of the camera's look from the game's, 0..1.
        seed: Decides everything; another seed draws entirely different streets.
        frames: Make each target image the first of a sequence of so many frames (at most 8) of a
            drive, in a folder of its own, with true optical flow; 1: still images.
        workers: Number of processes that draw; 1: only this one.
        progress: Called with the number of finished images and the total number.

    Raises:
        PipaError: The folder is not empty or cannot be written, or a number is out of range.
    """
    counts = dict(zip(_SPLITS, (source, target, validation, test), strict=True))
    check_arguments(seed, "camera", height, width, gap, frames)
    for split, count in counts.items():
        if not 0 <= count < _ROOM:
            remedy = f"Take 0 to {_ROOM - 1}."
            raise PipaError(f"the number of images of {split.name} is {count}", "streets", remedy)
    folder = Path(folder).expanduser()
    if folder.name in ("", ".."):
        raise PipaError("cannot be replaced", folder, "Name a new folder.")
    _refuse_if_full(folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    draw = partial(_draw, height=height, width=width, gap=gap, palette=_palette())
    try:
        jobs = list(_jobs(part, counts, seed, frames))
        note = f"# Streets of pipa: {height}x{width}, gap {gap}, seed {seed}\n"
        (part / "classes.yaml").write_text(note + _classes(), encoding="utf-8")
        for done, _ in enumerate(_run(draw, jobs, workers), start=1):
            if progress:
                progress(done, len(jobs))
        _refuse_if_full(folder)
        part.replace(folder)
    except OSError as error:
        raise PipaError(f"cannot be written ({error.strerror})", folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_if_full(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problem = "exists and is not an empty folder; nothing was written"
        raise PipaError(problem, folder, "Choose another folder, or remove this one first.")


def _jobs(root: Path, counts: dict[_Split, int], seed: int, frames: int) -> Iterator[_Job]:
    """Make the folders, and list the images of all splits."""
    for index, (split, count) in enumerate(counts.items()):
        images, labels = root / split.name / "images", root / split.name / "labels"
        images.mkdir(parents=True)
        if split.labelled:
            labels.mkdir()
        first = (seed * len(_SPLITS) + index) * _ROOM
        for i in range(count):
            name = f"{i:06d}.png"
            if split.name == "target" and frames > 1:
                yield _Job(first + i, split.domain, images / f"{i:06d}", None, frames)
                continue
            label = labels / name if split.labelled else None
            yield _Job(first + i, split.domain, images / name, label)


def _run(draw: Callable[[_Job], None], jobs: list[_Job], workers: int) -> Iterable[None]:
    """Do the jobs; yield their results in order, each as soon as it is ready."""
    if workers <= 1 or len(jobs) < 2:
        yield from map(draw, jobs)
        return
    # fork: a user's script needs no `if __name__ == "__main__"`; elsewhere it is not safe
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends OpenCV's threads: a forked process would wait forever for them
    try:
        with ProcessPoolExecutor(workers, context) as pool:
            yield from pool.map(draw, jobs, chunksize=8)
    finally:
        cv2.setNumThreads(threads)


def _draw(
    job: _Job, *, height: int, width: int, gap: float, palette: UInt8[np.ndarray, "k 3"]
) -> None:
    if job.frames > 1:
        _draw_sequence(job, height, width, gap)
        return
    image, label = street(job.seed, job.domain, height=height, width=width, gap=gap)
    write_png(job.image, image)
    if job.label is not None:
        write_png(job.label, label, palette)


def _draw_sequence(job: _Job, height: int, width: int, gap: float) -> None:
    drawn = street_frames(job.seed, job.domain, job.frames, height=height, width=width, gap=gap)
    split, sequence = job.image.parents[1], job.image.name
    folders = [split / kind / sequence for kind in ("images", "flow_next", "flow_previous")]
    for folder in folders:
        folder.mkdir(parents=True)
    for number, frame in enumerate(drawn):
        images, after, before = (folder / f"{number:02d}.png" for folder in folders)
        write_png(images, frame.image)
        if frame.next is not None:
            write_flow(after, frame.next)
        if frame.previous is not None:
            write_flow(before, frame.previous)


def _palette() -> UInt8[np.ndarray, "k 3"]:
    """Return Cityscapes' colours for the ids 0..255; black for ids without a class."""
    from pipa.classes import CITYSCAPES

    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: CITYSCAPES.num_classes] = CITYSCAPES.colours
    return palette


def _classes() -> str:
    from pipa.classes import CITYSCAPES

    rows = enumerate(zip(CITYSCAPES.names, CITYSCAPES.colours, strict=True))
    return "".join(
        f"{i}: {{name: {name}, color: {list(colour)}, cityscapes: [{i}]}}\n"
        for i, (name, colour) in rows
    )
