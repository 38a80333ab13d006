"""One function applied to every file of a data set, on all cores, with a progress bar."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Result = TypeVar("Result")


def in_threads(work: Callable[[int], Result], count: int, title: str) -> Iterator[Result]:
    """Yield `work(0) .. work(count - 1)`, in order; show a progress bar on a terminal.

    Threads suffice, since OpenCV releases Python's lock; unlike processes, they need neither a
    main guard nor copies of the data set.
    """
    console = Console(stderr=True)
    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            yield from track(
                pool.map(work, range(count)),
                description=title,
                total=count,
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
        finally:
            pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Return the number of cores that this process may use; containers and jobs limit it."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
