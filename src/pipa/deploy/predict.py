"""Prediction for files, folders, globs and videos, written as pictures.

Images are read ahead and written by threads, while the network labels those of one size together;
what waits in between is bounded, so memory stays flat. Every file appears whole or not at all.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from pipa.deploy.outputs import DEFAULT, IN_VIDEOS, KINDS, Painter
from pipa.deploy.plan import Job, plan
from pipa.deploy.video import VideoReader, VideoWriter
from pipa.errors import PipaError, at_least
from pipa.files.images import read_image
from pipa.files.threads import available_cores
from pipa.files.writing import replacing
from pipa.models.labeller import Answer, Labeller
from pipa.models.segmenter import Segmenter

Image = UInt8[np.ndarray, "h w 3"]
Written = tuple[Path, list[Path]]
"""An input and the files written for it."""

PIXELS = 2**24
"""Pixels of the images that go through a GPU together, at most, unless a batch is given."""


def predict(
    model: Segmenter,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    kinds: Sequence[str] = DEFAULT,
    scale: float | None = None,
    alpha: float = 0.5,
    batch: int | None = None,
    shard: tuple[int, int] = (1, 1),
    resume: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
    tick: Callable[[int], None] = lambda images: None,
) -> "Predictions":
    """Label images of any size and videos; write OUT/KIND/NAME.png, one input after the other.

    Folders below those of the inputs are kept, so that a/x.png and b/x.png do not collide; x.png
    beside x.jpg become x.png.png and x.jpg.png. A video becomes OUT/KIND/NAME.webm (VP9) for
    those of the kinds overlay, colour and confidence that are asked for. All inputs are found
    before the first is read; the outputs never lie among them.

    Args:
        model: The network; if its `labels` are None, colours are made up.
        inputs: Images, videos, folders of them (searched at any depth), or glob patterns.
        out: Folder to write to; it is made. Older files of the same names are replaced.
        kinds: The kinds of output, some of `outputs.KINDS`.
        scale: Factor by which images are resized for the network; outputs keep the input's size.
            None: by the model's `resize`.
        alpha: Weight of the class's colour in an overlay, 0..1.
        batch: Consecutive images of one size, or frames, that go through the network together;
            None: 1 on a CPU, else up to 8, fewer of large ones.
        shard: (i, n), 1 <= i <= n: every n-th input from the i-th on, for n machines.
        resume: Leave out the inputs whose outputs are all there.
        on_error: "stop" at an input that cannot be read, or "skip" it: `faults` lists those.
        tick: Called with the number of images and frames that were labelled since the last call.

    Returns:
        An iterator over each input and the files written for it; it does the work.

    Raises:
        PipaError: An option is not possible, `out` lies in a folder of inputs, an input is missing
            or (from the iterator) cannot be read, or an output cannot be written.
    """
    painter = Painter(model, kinds, alpha)
    labeller = Labeller(
        model,
        scale=scale,
        confidence="confidence" in kinds,
        probabilities="probabilities" in kinds,
    )
    if batch is None and model.mean.device.type == "cpu":
        batch = 1
    if batch is not None:
        at_least(1, batch, "batch")
    found = plan(inputs, out, shard=shard)
    _refuse_to_replace_inputs(found.jobs, out, painter.kinds)
    _make_folder(out)
    jobs = [job for job in found.jobs if not (resume and _is_done(job, out, painter.kinds))]
    return Predictions(jobs, found.ignored, _Work(labeller, painter, out, tick, batch), on_error)


class Predictions(Iterator[Written]):
    """Yields each input and the files written for it, in order; labels them as it is asked to.

    Args:
        jobs: The inputs.
        ignored: Files beside them that are neither an image nor a video.
        work: What to do with each.
        on_error: "stop" at an input that cannot be read, or "skip" it.
    """

    def __init__(
        self, jobs: Sequence[Job], ignored: list[Path], work: "_Work", on_error: str
    ) -> None:
        self.jobs, self.ignored = jobs, ignored
        self.faults: list[PipaError] = []
        """One error for each input that was skipped so far."""
        self._work, self._stop = work, on_error == "stop"
        self._results = self._run()

    def __next__(self) -> Written:
        return next(self._results)

    def count(self) -> int:
        """Return the number of images and frames, as far as the files of the videos tell."""
        return sum(_frames(job.source) if job.is_video else 1 for job in self.jobs)

    def _run(self) -> Iterator[Written]:
        pool = ThreadPoolExecutor(available_cores())
        written: deque[tuple[Path, Future[list[Path]]]] = deque()
        work = self._work
        try:
            with closing(self._batches(pool)) as batches:
                for jobs, images in batches:
                    if images:
                        answers = work.label(images)
                        for job, image, answer in zip(jobs, images, answers, strict=True):
                            done = pool.submit(work.write, job, image, answer)
                            written.append((job.source, done))
                    else:
                        yield from _finished(written, 0)
                        yield from self._video(jobs[0])
                    yield from _finished(written, work.waiting)
        except PipaError:
            yield from _finished(written, 0)
            raise
        else:
            yield from _finished(written, 0)
        finally:
            pool.shutdown(cancel_futures=True)

    def _batches(
        self, pool: ThreadPoolExecutor
    ) -> Generator[tuple[list[Job], list[Image]], None, None]:
        """Yield consecutive images of one size; a video is alone, and has no image."""
        jobs: list[Job] = []
        images: list[Image] = []
        for job, reading in _ahead(pool, self.jobs, 2 * self._work.waiting + 2):
            try:
                image = reading.result()
            except PipaError as error:
                if self._stop:
                    if jobs:
                        yield jobs, images
                    raise
                self.faults.append(error)
                continue
            fits = image is not None and all(image.shape == other.shape for other in images)
            if jobs and (not fits or len(jobs) == self._work.most(images[0].shape)):
                yield jobs, images
                jobs, images = [], []
            if image is None:
                yield [job], []
            else:
                jobs, images = [*jobs, job], [*images, image]
        if jobs:
            yield jobs, images

    def _video(self, job: Job) -> Iterator[Written]:
        try:
            yield job.source, self._work.video(job)
        except PipaError as error:
            if self._stop or error.where != job.source:
                raise
            self.faults.append(error)


class _Work:
    """What is done with one input: reading, labelling, writing."""

    def __init__(
        self,
        labeller: Labeller,
        painter: Painter,
        out: Path,
        tick: Callable[[int], None],
        batch: int | None,
    ) -> None:
        self.labeller, self.painter, self.out = labeller, painter, out
        self.tick, self.batch = tick, batch
        self.waiting = batch or 8

    def most(self, shape: tuple[int, ...]) -> int:
        """How many images of a shape go through the network together."""
        return self.batch or max(1, min(8, PIXELS // (shape[0] * shape[1])))

    def label(self, images: Sequence[Image]) -> list[Answer]:
        answers = self.labeller(images)
        self.tick(len(images))
        return answers

    def write(self, job: Job, image: Image, answer: Answer) -> list[Path]:
        paths = _outputs(job, self.out, self.painter.kinds)
        for kind, path in paths.items():
            _make_folder(path.parent)
            self.painter.write(path, kind, image, answer)
        return list(paths.values())

    def video(self, job: Job) -> list[Path]:
        paths = _outputs(job, self.out, self.painter.kinds)
        if not paths:
            remedy = f"Ask for {', '.join(IN_VIDEOS)}."
            raise PipaError("a video has no outputs of these kinds", job.source, remedy)
        try:
            with VideoReader(job.source) as reader, ExitStack() as stack:
                sinks: dict[str, VideoWriter] = {}
                for kind, path in paths.items():
                    _make_folder(path.parent)
                    part = stack.enter_context(replacing(path))
                    sinks[kind] = stack.enter_context(VideoWriter(part, reader.rate))
                self._label_frames(iter(reader), sinks)
        except OSError as error:
            problem = f"its video cannot be written ({error.strerror})"
            raise PipaError(problem, self.out, "Choose another --out.") from error
        return list(paths.values())

    def _label_frames(self, frames: Iterator[Image], sinks: dict[str, VideoWriter]) -> None:
        for shape, alike in groupby(frames, key=lambda frame: frame.shape):  # it may change
            while images := list(islice(alike, self.most(shape))):
                for image, answer in zip(images, self.label(images), strict=True):
                    for kind, sink in sinks.items():
                        sink.write(self.painter.picture(kind, image, answer))


def _ahead(
    pool: ThreadPoolExecutor, jobs: Sequence[Job], depth: int
) -> Iterator[tuple[Job, "Future[Image | None]"]]:
    """Read images in threads, at most `depth` of them before they are asked for."""
    waiting: deque[tuple[Job, Future[Image | None]]] = deque()
    for job in jobs:
        waiting.append((job, pool.submit(_read, job)))
        if len(waiting) > depth:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def _read(job: Job) -> Image | None:
    return None if job.is_video else read_image(job.source)


def _finished(written: deque[tuple[Path, "Future[list[Path]]"]], left: int) -> Iterator[Written]:
    """Wait for all but the last few inputs whose outputs are being written."""
    while len(written) > left:
        source, paths = written.popleft()
        yield source, paths.result()


def _outputs(job: Job, out: Path, kinds: Sequence[str]) -> dict[str, Path]:
    """Return the path of each output of an input; those of a video may be none."""
    if job.is_video:
        return {kind: job.output(out, kind, ".webm") for kind in kinds if kind in IN_VIDEOS}
    return {kind: job.output(out, kind, KINDS[kind]) for kind in kinds}


def _refuse_to_replace_inputs(jobs: Sequence[Job], out: Path, kinds: Sequence[str]) -> None:
    given = {os.path.realpath(job.source) for job in jobs}
    for path in (path for job in jobs for path in _outputs(job, out, kinds).values()):
        if os.path.realpath(path) in given:
            raise PipaError("is an input, and would be replaced", path, "Choose another --out.")


def _is_done(job: Job, out: Path, kinds: Sequence[str]) -> bool:
    paths = _outputs(job, out, kinds).values()
    return bool(paths) and all(path.is_file() for path in paths)


def _frames(path: Path) -> int:
    try:
        with VideoReader(path) as reader:
            return reader.estimate
    except PipaError:  # it is reported when its turn comes
        return 1


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipaError(
            f"the folder cannot be made ({error.strerror})", folder, "Choose another --out."
        ) from error
