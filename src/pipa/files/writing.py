"""Writing a file whole or not at all: under a temporary name beside it, then renamed."""

import os
from contextlib import suppress
from pathlib import Path

from pipa.errors import PipaError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it: it appears whole or not at all.

    Raises:
        PipaError: The file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise PipaError(problem, path, "Choose another place.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file through a temporary name beside it; make its folder.

    Raises:
        PipaError: The file cannot be written; nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise PipaError(problem, path, "Choose another place.") from error
    write_bytes(path, text.encode())
