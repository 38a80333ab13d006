"""How far `pipa predict` is: images per second and the time that is left, on stderr."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

INTERVAL = 30.0
"""Seconds between two lines where stderr is a file and not a terminal."""


class Progress:
    """A bar on a terminal, a line now and then elsewhere, and a line at the end."""

    def __init__(self) -> None:
        console = Console(stderr=True, markup=False, emoji=False)
        self.bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            # Lines on a terminal go above the bar; a file or a pipe gets them as they are.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.task = self.bar.add_task("", total=None, speed="")
        self.done, self.total = 0, 0
        self.start = self.told = time.monotonic()

    def begin(self, total: int) -> None:
        """Start the clock.

        Args:
            total: The number of images and frames to come, or a guess at it.
        """
        self.total = total
        self.start = self.told = time.monotonic()
        self.bar.update(self.task, total=total)

    def advance(self, images: int) -> None:
        """Count images that were labelled."""
        self.done += images
        now = time.monotonic()
        self.bar.update(self.task, completed=self.done, speed=self.speed(now))
        if self.bar.disable and now - self.told >= INTERVAL:
            self.told = now
            left = (now - self.start) * max(self.total - self.done, 0) / self.done
            line = f"{self.done} of {self.total} images, {self.speed(now)}, {_clock(left)} left"
            print(line, file=sys.stderr, flush=True)

    def speed(self, now: float) -> str:
        """Say how many images there were in a second so far."""
        return f"{self.done / max(now - self.start, 1e-9):.3g} images/s"

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        self.bar.stop()
        if kind is None and self.done:
            now = time.monotonic()
            spent = _clock(now - self.start)
            print(f"{self.done} images in {spent}, {self.speed(now)}", file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
