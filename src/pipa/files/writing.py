"""Atomic writes: a file gets a temporary name beside its place, and is then renamed."""

import os
from contextlib import suppress
from pathlib import Path

from pipa.errors import PipaError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all.

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
    """Write a text file, whole or not at all; make its folder.

    Raises:
        PipaError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise PipaError(problem, path, "Choose another place.") from error
    write_bytes(path, text.encode())
