"""Faults of many files, each kind once with a count; and the pictures that pipa does not read."""

from collections.abc import Iterable

from pipa.data.layouts import Files
from pipa.errors import PipaError
from pipa.files.images import FOREIGN_SUFFIXES

SHOWN = 3
"""How many of the files with one fault are named."""
PICTURES = FOREIGN_SUFFIXES | {
    ".exr",
    ".hdr",
    ".jfif",
    ".jpe",
    ".orf",
    ".pdf",
    ".raf",
    ".raw",
    ".rw2",
    ".tga",
}
"""Suffixes of pictures, as cameras and phones write them, that pipa does not read."""


def unread(files: Files) -> list[PipaError]:
    """Return an error for each picture among the images that is skipped."""
    return [
        PipaError(
            f"is skipped, since pipa does not read {path.suffix.lower()}",
            path,
            "Convert it to PNG or JPEG.",
        )
        for path in files.skipped
        if path.suffix.lower() in PICTURES
    ]


def listed(faults: Iterable[PipaError]) -> list[str]:
    """Return a line for each kind of fault, in the order of their first files.

    Faults are of one kind if their problems agree up to a semicolon; the first one's text is shown.
    """
    kinds: dict[str, list[PipaError]] = {}
    for fault in faults:
        kinds.setdefault(fault.problem.partition(";")[0], []).append(fault)
    return [_line(alike) for alike in kinds.values()]


def _line(alike: list[PipaError]) -> str:
    first, count = alike[0], len(alike)
    if count == 1:
        return str(first)
    named = ", ".join(str(fault.where) for fault in alike[:SHOWN])
    more = f" and {count - SHOWN} more" if count > SHOWN else ""
    return f"{PipaError(first.problem, f'{count} files', first.remedy)} They are {named}{more}."
