"""Videos, read and written frame by frame; what is written plays in every browser (VP9, WebM)."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from pipa.errors import PipaError

OPTIONS = {"crf": "28", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
"""Of libvpx: constant quality, at the speed of a camera on a few cores."""


class VideoReader:
    """The frames of a video file as RGB, turned upright.

    Args:
        path: The file.

    Raises:
        PipaError: The file is no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _in_one_line(path):
            self.container = av.open(str(path))
        if not self.container.streams.video:
            self.container.close()
            raise PipaError("holds no video", path)
        self.stream = self.container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self.rate = self.stream.average_rate or Fraction(25)
        """Frames per second."""

    @property
    def estimate(self) -> int:
        """The number of frames, as far as the file tells; at least 1."""
        seconds = (self.container.duration or 0) / av.time_base
        return self.stream.frames or max(1, round(seconds * self.rate))

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """Yield the frames.

        Raises:
            PipaError: No frame can be read; a video that ends early is taken as far as it goes.
        """
        count = 0
        try:
            for frame in self.container.decode(self.stream):
                image = frame.to_ndarray(format="rgb24")
                yield np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
                count += 1
        except av.FFmpegError:
            if count:
                raise PipaError(f"is damaged after {count} frames", self.path) from None
        if not count:
            raise PipaError("no frame could be read; is it a video, or broken?", self.path)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.container.close()


class VideoWriter:
    """A WebM file with VP9; its size is that of the first frame.

    Args:
        path: The file to write; on an error nothing is cleaned up.
        rate: Frames per second.

    Raises:
        PipaError: The file cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path = path
        with _in_one_line(path):
            self.container = av.open(str(path), "w", format="webm")
        self.stream = self.container.add_stream("libvpx-vp9", rate=rate, options=OPTIONS)
        self.stream.pix_fmt = "yuv420p"
        self.empty = True

    def write(self, image: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"]) -> None:
        """Append a frame, in RGB or grey."""
        if self.empty:
            self.stream.height, self.stream.width = image.shape[:2]
            self.empty = False
        layout = "rgb24" if image.ndim == 3 else "gray"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=layout)
        with _in_one_line(self.path):
            self.container.mux(self.stream.encode(frame))

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        with _in_one_line(self.path):
            if not self.empty and kind is None:
                self.container.mux(self.stream.encode())
            self.container.close()


@contextmanager
def _in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise PipaError(f"cannot be read or written as a video ({error.strerror})", path) from error
